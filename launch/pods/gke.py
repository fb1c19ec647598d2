"""A training on TPU slices of a GKE cluster, as a JobSet.

    python -m launch.pods.gke apply NAME --topology v5e:16x16 --image I --bucket B --config C --workdir /gcs/W [-- --config.key=value]

The JobSet starts all pods again when one fails or its node is preempted, and the training goes on from its newest checkpoint.
--dry_run prints the commands; `manifest` prints what `apply` applies. launch.pods.xpk does the same through XPK.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.pods.commands import (
    ROOT,
    DryRun,
    Runner,
    add_dry_run,
    add_training_arguments,
    run_main,
    split_arguments,
    train_arguments,
)
from smolrgpt_jax.chips import SLICES, Slice, find_slice
from smolrgpt_jax.distributed import PORT

MOUNT = "/gcs"
SAVE_SECONDS = 300  # between a pod's SIGTERM and its end


def manifest(
    name: str,
    tpu: Slice,
    image: str,
    arguments: Sequence[str],
    *,
    slices: int = 1,
    spot: bool = False,
    bucket: str | None = None,
    service_account: str | None = None,
    max_restarts: int = 100,
) -> dict[str, Any]:
    """The JobSet (jobset.x-k8s.io/v1alpha2): one Job per slice, one pod per host, all chips of the host for the pod.

    A bucket is mounted at /gcs through GKE's Cloud Storage FUSE driver, for which `service_account`, a Kubernetes one, needs
    access to it. A preemption counts as a restart only where a pod fails of it before Kubernetes reports it.
    """
    container: dict[str, Any] = {
        "name": "train",
        "image": image,
        "command": ["python", "-u", "-m", "launch.train", *arguments],
        # 8471: between the TPU runtimes of a slice.
        "ports": [{"containerPort": 8471}, {"containerPort": PORT}],
        "resources": {
            "requests": {"google.com/tpu": tpu.chips_per_host},
            "limits": {"google.com/tpu": tpu.chips_per_host},
        },
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": SAVE_SECONDS,
        "nodeSelector": {
            "cloud.google.com/gke-tpu-accelerator": tpu.cloud.label,
            "cloud.google.com/gke-tpu-topology": tpu.topology,
            **({"cloud.google.com/gke-spot": "true"} if spot else {}),
        },
        "containers": [container],
    }
    annotations = {"gke-gcsfuse/volumes": "true"} if bucket else {}
    if bucket:
        container["volumeMounts"] = [{"name": "bucket", "mountPath": MOUNT}]
        csi = {
            "driver": "gcsfuse.csi.storage.gke.io",
            "volumeAttributes": {"bucketName": bucket, "mountOptions": "implicit-dirs"},
        }
        pod["volumes"] = [{"name": "bucket", "csi": csi}]
    if service_account:
        pod["serviceAccountName"] = service_account
    job = {
        "parallelism": tpu.hosts,
        "completions": tpu.hosts,
        "completionMode": "Indexed",
        # One pod cannot join a run again, so the first failure ends the Job and the JobSet starts all pods anew.
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
        },
        "template": {"metadata": {"annotations": annotations}, "spec": pod},
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
            "name": name,
            # One node pool per Job: the pods of a slice must not be spread over two.
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "failurePolicy": {"maxRestarts": max_restarts, "rules": [preempted]},
            "replicatedJobs": [{"name": "slice", "replicas": slices, "template": {"spec": job}}],
        },
    }


def create_pools(runner: Runner, cluster: str, region: str, zone: str, tpu: Slice, slices: int, spot: bool) -> None:
    """Adds one node pool per slice to a cluster."""
    for i in range(slices):
        runner.run(
            ["gcloud", "container", "node-pools", "create", f"{tpu.name.replace(':', '-')}-{i}"]
            + [f"--cluster={cluster}", f"--location={region}", f"--node-locations={zone}"]
            + [f"--machine-type={tpu.machine_type}", f"--num-nodes={tpu.hosts}"]
            # Pools of one host take their topology from the machine.
            + ([f"--tpu-topology={tpu.topology}"] if tpu.hosts > 1 else [])
            + (["--spot"] if spot else [])
            + ["--workload-metadata=GKE_METADATA"]
        )


def build_image(runner: Runner, image: str) -> None:
    """Builds launch/pods/Dockerfile and pushes it, for launch.pods.gke and launch.pods.xpk."""
    runner.run(["docker", "build", f"--file={ROOT / 'launch' / 'pods' / 'Dockerfile'}", f"--tag={image}", str(ROOT)])
    runner.run(["docker", "push", image])


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    add_dry_run(common)
    job = argparse.ArgumentParser(add_help=False)
    job.add_argument("name", help="of the JobSet")
    tpu = argparse.ArgumentParser(add_help=False)
    tpu.add_argument("--topology", required=True, help=f"one of {', '.join(SLICES)}")
    tpu.add_argument("--slices", type=int, default=1, help="default %(default)s")
    tpu.add_argument("--spot", action="store_true", help="cheaper nodes that can be preempted")
    what = argparse.ArgumentParser(add_help=False)
    what.add_argument("--image", required=True, help="container image that `image` made")
    what.add_argument("--bucket", help=f"Cloud Storage bucket to mount at {MOUNT}")
    what.add_argument("--service_account", help="Kubernetes service account with access to the bucket")
    what.add_argument(
        "--max_restarts", type=int, default=100, help="after errors and some preemptions (default %(default)s)"
    )
    add_training_arguments(what)
    parser = argparse.ArgumentParser(
        prog="python -m launch.pods.gke", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    image = verbs.add_parser("image", parents=[common], help="build and push the container image")
    image.add_argument("image", help="its name with the registry")
    pool = verbs.add_parser("pool", parents=[common, tpu], help="add TPU node pools to a cluster")
    pool.add_argument("cluster")
    pool.add_argument("--region", required=True, help="of the cluster")
    pool.add_argument("--zone", required=True, help="where the TPUs are")
    verbs.add_parser("manifest", parents=[job, tpu, what], help="print the JobSet")
    verbs.add_parser("apply", parents=[common, job, tpu, what], help="start the training")
    logs = verbs.add_parser("logs", parents=[common, job], help="follow the log of process 0")
    logs.add_argument("--lines", type=int, default=100, help="default %(default)s")
    verbs.add_parser("status", parents=[common, job], help="the JobSet and its pods")
    verbs.add_parser("delete", parents=[common, job], help="end the training")
    return parser


def main(arguments: Sequence[str], runner: Runner | None = None) -> None:
    """Runs the command line; `runner` replaces the one that executes."""
    own, rest = split_arguments(arguments)
    a = _parser().parse_args(own)
    runner = runner or (DryRun() if getattr(a, "dry_run", False) else Runner())
    if a.verb == "image":
        build_image(runner, a.image)
    elif a.verb == "pool":
        create_pools(runner, a.cluster, a.region, a.zone, find_slice(a.topology), a.slices, a.spot)
    elif a.verb in ("manifest", "apply"):
        text = json.dumps(
            manifest(
                a.name,
                find_slice(a.topology),
                a.image,
                train_arguments(a.config, a.workdir, rest),
                slices=a.slices,
                spot=a.spot,
                bucket=a.bucket,
                service_account=a.service_account,
                max_restarts=a.max_restarts,
            ),
            indent=2,
        )
        if a.verb == "manifest":
            print(text)
            return
        path = Path(tempfile.gettempdir()) / f"{a.name}.json"
        runner.write(path, text + "\n")
        runner.run(["kubectl", "apply", f"--filename={path}"])
    elif a.verb == "logs":
        first = f"jobset.sigs.k8s.io/jobset-name={a.name},jobset.sigs.k8s.io/job-index=0"
        runner.run(
            ["kubectl", "logs", f"--selector={first},batch.kubernetes.io/job-completion-index=0"]
            + ["--container=train", f"--tail={a.lines}", "--follow"]
        )
    elif a.verb == "status":
        runner.run(["kubectl", "get", f"jobset/{a.name}"])
        runner.run(["kubectl", "get", "pods", f"--selector=jobset.sigs.k8s.io/jobset-name={a.name}"])
    else:
        runner.run(["kubectl", "delete", f"jobset/{a.name}"])


if __name__ == "__main__":
    run_main(main)
