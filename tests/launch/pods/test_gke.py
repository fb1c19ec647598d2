"""The JobSet against the published fields, and the commands of launch.gke and launch.xpk."""

from __future__ import annotations

import copy
import json
import shlex
from pathlib import Path

import jsonschema
import pytest

from launch import gke, xpk
from launch.pods.commands import ROOT
from launch.pods.jobset import JobSet
from smolrgpt_jax.chips import SLICES, find_slice

SCHEMA = json.loads((Path(__file__).parent / "jobset.schema.json").read_text())
TRAIN = ["--config", "configs/demo.py:stage3", "--workdir", "/gcs/w"]
ROWS = ["--", "--config.batch_rows=16"]
JOB = ["smol", "--topology", "v5e:4x4", "--image", "r/i", *TRAIN]


def manifest(topology: str = "v5e:4x4", **options) -> dict:
    return JobSet("smol", find_slice(topology), "r/i", ["python", "train.py"], **options).manifest()


def job_of(manifest: dict) -> dict:
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]


@pytest.mark.parametrize("name", SLICES)
@pytest.mark.parametrize("options", [{}, {"slices": 2, "spot": True, "bucket": "b", "service_account": "trainer"}])
def test_manifests_are_valid(name, options):
    made = manifest(name, **options)
    jsonschema.validate(made, SCHEMA, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(("topology", "slices"), [("v5e:2x2", 1), ("v5e:4x4", 2), ("v5e:16x16", 11)])
def test_a_name_is_as_long_as_the_longest_pods_name_lets_it_be(topology, slices):
    job_set = JobSet("smol", find_slice(topology), "r/i", [], slices=slices)
    (jobs,) = job_set.manifest()["spec"]["replicatedJobs"]
    # JobSet's webhook checks this name, with five characters for those that Kubernetes draws.
    last = f"-{jobs['name']}-{jobs['replicas'] - 1}-{jobs['template']['spec']['completions'] - 1}-abcde"
    assert len("n" * job_set.longest_name + last) == 63


def test_a_host_per_pod_and_all_its_chips():
    made = manifest("v5e:16x16", slices=2, spot=True)
    (jobs,) = made["spec"]["replicatedJobs"]
    assert jobs["replicas"] == 2
    job = job_of(made)
    assert (job["parallelism"], job["completions"], job["backoffLimit"]) == (64, 64, 0)
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "16x16",
        "cloud.google.com/gke-spot": "true",
    }
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert {"containerPort": 8476} in container["ports"]
    assert container["command"] == ["python", "train.py"]


def spoil(path: list, value) -> dict:
    made = copy.deepcopy(manifest(bucket="b"))
    *way, last = path
    part = made
    for key in way:
        part = part[key]
    part[last] = value
    return made


POD = ["spec", "replicatedJobs", 0, "template", "spec", "template", "spec"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["apiVersion"], "jobset.x-k8s.io/v1"),
        (["metadata", "name"], "Smol_Run"),
        (["spec", "failurePolicy", "maxRestart"], 3),
        (["spec", "failurePolicy", "rules", 0, "action"], "Restart"),
        (["spec", "replicatedJobs", 0, "replicas"], "2"),
        ([*POD[:-2], "completionMode"], "Index"),
        ([*POD, "restartPolicy"], "Always"),
        ([*POD, "nodeSelector", "cloud.google.com/gke-tpu-topology"], 4),
        ([*POD, "containers", 0, "resources", "limits", "google.com/tpu"], 0),
        ([*POD, "containers", 0, "command"], "python"),
        ([*POD, "volumes", 0, "csi"], {}),
    ],
)
def test_the_schema_sees_mistakes(path, value):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spoil(path, value), SCHEMA, cls=jsonschema.Draft202012Validator)


def test_apply_gets_what_manifest_prints(recorder, capsys):
    runner = recorder()
    gke.main(["apply", *JOB, *ROWS], runner)
    gke.main(["manifest", *JOB, *ROWS])
    (text,) = runner.texts
    assert text == capsys.readouterr().out
    (container,) = job_of(json.loads(text))["template"]["spec"]["containers"]
    train = ["python", "-u", "-m", "launch.train", "--config=configs/demo.py:stage3", "--workdir=/gcs/w"]
    assert container["command"] == [*train, "--config.batch_rows=16"]
    assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]
    assert runner.commands == [["kubectl", "apply", "--filename=-"]]
    gke.main(["apply", *JOB, "--dry_run", *ROWS])
    assert capsys.readouterr().out == f"kubectl apply --filename=- <<'END'\n{text}END\n"


SELECTOR = "jobset.sigs.k8s.io/jobset-name=smol"
XPK = "--cluster=k --zone=z"


@pytest.mark.parametrize(
    ("launcher", "arguments", "expected"),
    [
        (
            gke,
            ["image", "r/i"],
            [f"docker build --file={ROOT}/launch/pods/Dockerfile --tag=r/i {ROOT}", "docker push r/i"],
        ),
        (
            gke,
            ["pool", "k", "--region", "r", "--zone", "z", "--topology", "v5e:4x4", "--slices", "2", "--spot"],
            [
                f"gcloud container node-pools create v5e-4x4-{i} --cluster=k --location=r --node-locations=z "
                "--machine-type=ct5lp-hightpu-4t --num-nodes=4 --tpu-topology=4x4 --spot --workload-metadata=GKE_METADATA"
                for i in range(2)
            ],
        ),
        (
            gke,
            ["pool", "k", "--region", "r", "--zone", "z", "--topology", "v6e:2x4"],
            [
                "gcloud container node-pools create v6e-2x4-0 --cluster=k --location=r --node-locations=z "
                "--machine-type=ct6e-standard-8t --num-nodes=1 --workload-metadata=GKE_METADATA"
            ],
        ),
        (
            gke,
            ["logs", "smol"],
            [
                f"kubectl logs --selector={SELECTOR},jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0 "
                "--container=train --tail=100 --follow"
            ],
        ),
        (gke, ["status", "smol"], ["kubectl get jobset/smol", f"kubectl get pods --selector={SELECTOR}"]),
        (gke, ["delete", "smol"], ["kubectl delete jobset/smol"]),
        (
            xpk,
            ["cluster", "--cluster", "k", "--zone", "z", "--topology", "v5e:16x16", "--slices", "2", "--spot"],
            [f"xpk cluster create {XPK} --tpu-type=v5litepod-256 --num-slices=2 --spot"],
        ),
        (
            xpk,
            ["cluster", "--cluster", "k", "--zone", "z", "--topology", "v5p:2x2x2", "--reservation", "mine"],
            [f"xpk cluster create {XPK} --tpu-type=v5p-16 --num-slices=1 --reservation=mine"],
        ),
        (
            xpk,
            ["run", *JOB, "--cluster", "k", "--zone", "z", "--project", "p", *ROWS],
            [
                f"xpk workload create --workload=smol {XPK} --project=p --tpu-type=v5litepod-16 --num-slices=1 "
                "--docker-image=r/i --max-restarts=100 --restart-on-exit-codes=1 --termination-grace-period-seconds=300 "
                "'--command=python -u -m launch.train --config=configs/demo.py:stage3 --workdir=/gcs/w --config.batch_rows=16'"
            ],
        ),
        (xpk, ["list", "--cluster", "k", "--zone", "z"], [f"xpk workload list {XPK}"]),
        (xpk, ["delete", "smol", "--cluster", "k", "--zone", "z"], [f"xpk workload delete --workload=smol {XPK}"]),
        (xpk, ["delete_cluster", "--cluster", "k", "--zone", "z"], [f"xpk cluster delete {XPK}"]),
    ],
)
def test_commands_and_dry_run(launcher, arguments, expected, recorder, capsys):
    runner = recorder()
    launcher.main(arguments, runner)
    assert [shlex.join(command) for command in runner.commands] == expected
    launcher.main([arguments[0], "--dry_run", *arguments[1:]])
    assert capsys.readouterr().out.splitlines() == expected
