"""A training as a JobSet of Kubernetes (jobset.x-k8s.io/v1alpha2) on TPU slices of GKE."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from launch.pods.commands import SAVE_SECONDS
from smolrgpt_jax.chips import Slice
from smolrgpt_jax.distributed import PORT


@dataclass(frozen=True)
class JobSet:
    """One Job per slice, one pod per host, all chips of the host for the pod.

    command: of every pod. bucket: mounted at /gcs through GKE's Cloud Storage FUSE driver, for which `service_account`, a
    Kubernetes one, needs access to it. A preemption counts as a restart only where a pod fails of it before Kubernetes reports it.
    """

    name: str
    tpu: Slice
    image: str
    command: Sequence[str]
    slices: int = 1
    spot: bool = False
    bucket: str | None = None
    service_account: str | None = None
    max_restarts: int = 100

    def manifest(self) -> dict[str, Any]:
        job = {
            "parallelism": self.tpu.hosts,
            "completions": self.tpu.hosts,
            "completionMode": "Indexed",
            # One pod cannot join a run again, so the first failure ends the Job and the JobSet starts all pods anew.
            "backoffLimit": 0,
            "podFailurePolicy": {
                "rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "template": {
                "metadata": {"annotations": {"gke-gcsfuse/volumes": "true"} if self.bucket else {}},
                "spec": self._pod(),
            },
        }
        preempted = {
            "name": "preempted",
            "action": "RestartJobSetAndIgnoreMaxRestarts",
            "onJobFailureReasons": ["PodFailurePolicy"],
        }
        return {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {
                "name": self.name,
                # One node pool per Job: the pods of a slice must not be spread over two.
                "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
            },
            "spec": {
                "failurePolicy": {"maxRestarts": self.max_restarts, "rules": [preempted]},
                "replicatedJobs": [{"name": "slice", "replicas": self.slices, "template": {"spec": job}}],
            },
        }

    def _pod(self) -> dict[str, Any]:
        chips = {"google.com/tpu": self.tpu.chips_per_host}
        container: dict[str, Any] = {
            "name": "train",
            "image": self.image,
            "command": list(self.command),
            # 8471: between the TPU runtimes of a slice.
            "ports": [{"containerPort": 8471}, {"containerPort": PORT}],
            "resources": {"requests": chips, "limits": chips},
        }
        pod: dict[str, Any] = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": SAVE_SECONDS,
            "nodeSelector": {
                "cloud.google.com/gke-tpu-accelerator": self.tpu.cloud.label,
                "cloud.google.com/gke-tpu-topology": self.tpu.topology,
                **({"cloud.google.com/gke-spot": "true"} if self.spot else {}),
            },
            "containers": [container],
        }
        if self.bucket:
            container["volumeMounts"] = [{"name": "bucket", "mountPath": "/gcs"}]
            attributes = {"bucketName": self.bucket, "mountOptions": "implicit-dirs"}
            csi = {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": attributes}
            pod["volumes"] = [{"name": "bucket", "csi": csi}]
        if self.service_account:
            pod["serviceAccountName"] = self.service_account
        return pod
