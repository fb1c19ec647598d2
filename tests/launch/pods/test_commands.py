"""Command lines: one sentence on bad input."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def told(monkeypatch):
    """Runs a command that ends on its input; returns what it tells."""

    def run(module: str, *arguments: str) -> str:
        if module == "launch.train":  # absl reads one command line per process
            done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True)
            assert done.returncode == 1
            return done.stderr.removesuffix("\n")
        monkeypatch.setattr("sys.argv", [module, *arguments])
        with pytest.raises(SystemExit) as end:
            importlib.import_module(module).main()
        return end.value.code

    monkeypatch.chdir(ROOT)
    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("launch.train", "--config=configs/stage3_sft.py", "--workdir=out"),
            "stage sft follows refiner_alignment or sft or mixed, not random parameters",
        ),
        (("launch.make_warehouse", "--out=out", "--width=5000"), "width is 5000, must be 32 to 1920"),
        (("launch.make_warehouse", "--out=out", "--appearance_variety=2"), "appearance_variety is 2.0, must be"),
        (("launch.make_warehouse", "--out=out", "--bench", "--test_scenes=0"), "bench is made of the test split"),
        (("launch.warehouse_gallery", "--data=nowhere", "--out=out.png"), "train.json: cannot be read"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, told, tmp_path):
    arguments = [
        a.replace("=out", f"={tmp_path / 'out'}").replace("=nowhere", f"={tmp_path / 'nowhere'}") for a in arguments
    ]
    sentence = told(*arguments)
    assert sentence.startswith("error: ") and message in sentence and "\n" not in sentence
    assert not (tmp_path / "out").exists()


TRAIN = ("--config=configs/demo.py:stage3", "--workdir=out")
SLURM = ("launch.slurm", "submit", "--gpus_per_node=1", "--time=1", "--dry_run")
ON_GCS = (TRAIN[0], "--workdir=/gcs/out")
POD = ("launch.tpu_pod", "resume", "n", "--zone=z", "--topology=v5e:4x4", "--dry_run")
PODS = ("--topology=v5e:4x4", "--image=i")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("launch.tpu_pod", "create", "n", "--zone=z", "--topology=v5e:16x15"),
            "error: no topology v5e:16x15; nearest: v5e:16x16",
        ),
        (
            (
                "launch.tpu_pod",
                "run",
                "n",
                "--zone=z",
                "--topology=v5e:2x2",
                "--config=configs/stage9.py",
                "--workdir=w",
            ),
            "error: no configuration configs/stage9.py in the repository (configs/demo.py, ",
        ),
        (("launch.tpu_pod", "wait", "n", "--zone=z"), "error: gcloud is not installed: install the Google Cloud"),
        (("launch.gke", "delete", "n"), "error: kubectl is not installed: run `gcloud components"),
        (("launch.xpk", "list", "--cluster=k", "--zone=z"), "error: xpk is not installed: run `pip install"),
        (
            ("launch.slurm", "submit", "--gpus_per_node=1", "--time=1", *TRAIN),
            "error: sbatch is not installed: run this on a login node",
        ),
        (
            ("launch.slurm", "submit", "--gpus_per_node=1", "--time=1", TRAIN[0], "--workdir=gs://b/w"),
            "error: --workdir gs://b/w is a URL",
        ),
        (("launch.train", TRAIN[0], "--workdir=gs://b/w"), "error: --workdir gs://b/w is a URL"),
        (
            (*SLURM, "--config=configs/stage3_sft.py", "--workdir=w"),
            "error: stage sft follows refiner_alignment or sft or mixed, not random parameters",
        ),
        (
            (*POD, *TRAIN, "--", "--config.nonsense=3"),
            "error: the configuration has no key 'nonsense', the nearest is ",
        ),
        (
            ("launch.gke", "manifest", "n", *PODS, *TRAIN, "--", "--config.keep=0"),
            "error: config.keep is 0, it must be a number at least 1",
        ),
        (
            ("launch.xpk", "run", "n", *PODS, "--cluster=k", "--zone=z", "--dry_run", *TRAIN)
            + ("--", "--config.init_from="),
            "error: stage sft follows refiner_alignment or sft or mixed, not random parameters",
        ),
        (
            (*POD, *ON_GCS),
            "error: config.batch_rows is 8, which 16 chips cannot share evenly: it has to be a multiple of 16, such as "
            "--config.batch_rows=16",
        ),
        (
            ("launch.tpu_pod", "run", "n", "--zone=z", "--slices=2", "--topology=v5e:2x4", "--dry_run", *ON_GCS),
            "error: config.batch_rows is 8, which 16 chips cannot share evenly",
        ),
        (
            ("launch.gke", "apply", "n", "--topology=v5e:16x16", "--image=i", "--dry_run", *ON_GCS)
            + ("--", "--config.batch_rows=300"),
            "error: config.batch_rows is 300, which 256 chips cannot share evenly: it has to be a multiple of 256, such as "
            "--config.batch_rows=512",
        ),
        (
            ("launch.gke", "manifest", "n", *PODS, *ON_GCS),
            "error: config.batch_rows is 8, which 16 chips cannot share evenly",
        ),
        (
            ("launch.xpk", "run", "n", *PODS, "--cluster=k", "--zone=z", "--dry_run", *ON_GCS)
            + ("--", "--config.batch_rows=16", "--config.mesh.fsdp=3"),
            "error: mesh {'data': 5, 'fsdp': 3, 'tensor': 1} does not fit 16 devices",
        ),
        (
            ("launch.slurm", "submit", "--nodes=3", "--gpus_per_node=8", "--time=1", "--dry_run", *TRAIN)
            + ("--", "--config.batch_rows=16", "--config.mesh.tensor=2", "--config.accumulation=4"),
            "error: config.batch_rows is 16, which 24 chips cannot share evenly: it has to be a multiple of 48 (12 ways of data x fsdp, "
            "4 accumulation part(s)), such as --config.batch_rows=48",
        ),
        *[
            (
                (*launcher, TRAIN[0], f"--workdir={folder}"),
                f"error: --workdir {folder} would be another folder on each host",
            )
            for launcher, folder in (
                (POD, "out"),
                (("launch.gke", "manifest", "n", *PODS), "~/out"),
                (("launch.xpk", "run", "n", *PODS, "--cluster=k", "--zone=z", "--dry_run"), "../out"),
            )
        ],
        ((*POD, TRAIN[0], "--workdir="), "error: --workdir '' is no path"),
        *[
            (
                (*launcher, "--dry_run"),
                f"error: {what} is none for Kubernetes: lower case letters, digits and '-', at most {most} ",
            )
            for launcher, what, most in (
                (("launch.gke", "status", "Smol"), "name 'Smol'", 63),
                (("launch.gke", "delete", "2smol"), "name '2smol'", 63),
                (("launch.gke", "logs", "smol-"), "name 'smol-'", 63),
                (("launch.gke", "pool", "My_k", "--region=r", "--zone=z", "--topology=v5e:4x4"), "cluster 'My_k'", 40),
                (("launch.gke", "apply", "a" * 48, *PODS[1:], "--topology=v5e:2x4", *ON_GCS), f"name '{'a' * 48}'", 47),
                (("launch.xpk", "list", "--cluster=K", "--zone=z"), "--cluster 'K'", 40),
                (("launch.xpk", "delete", "a" * 41, "--cluster=k", "--zone=z"), f"name '{'a' * 41}'", 40),
            )
        ],
        (
            ("launch.train", *TRAIN, "--num_processes=2"),
            "error: several processes need --coordinator_address (JAX_COORDINATOR_ADDRESS) and --process_id (JAX_PROCESS_ID) too",
        ),
    ],
)
def test_what_a_launcher_cannot_do_is_one_sentence(arguments, message, told, tmp_path, monkeypatch):
    for name in os.environ:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path))
    sentence = told(*arguments)
    assert sentence.startswith(message) and "\n" not in sentence
