"""The real compiler for TPUs, where libtpu is installed (the `tpu` extra)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("libtpu", reason="needs libtpu, the tpu extra")
ROOT = Path(__file__).parents[2]


def command(*arguments: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "launch.compile_for_tpu", "--config=configs/demo.py:stage3", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True)


def test_the_demos_step_for_eight_chips(tmp_path):
    out = tmp_path / "report.json"
    done = command("--topology=v5e:2x4", f"--out={out}", "--config.model.compute_dtype=bfloat16")
    assert done.returncode == 0, done.stderr
    assert "compiled, not run: 8 rows on 8 devices" in done.stdout
    report = json.loads(out.read_text())
    assert report["settings"]["strategy"] == "zero1" and report["mesh"]["fsdp"] == 8
    assert report["flops"]["compiled_over_analytic"] == pytest.approx(1, rel=0.1)
    assert 0 < report["memory"]["total"] < 2**30 and not report["loops_of_unknown_length"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--topology=v5e:4x4",), "a batch of 8 rows does not divide"),
        (("--topology=v5e:2x4", "--config.mesh.data=3"), "does not fit 8 devices"),
        (("--topology=v5e:2x4", "--config.mesh.fsdp=8", "--slices=2"), "does not fit 16 devices"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message):
    if "--config.mesh.data=3" in arguments:
        arguments = (*arguments[:-1], "--config.mesh={'data': 3}")
    if "--config.mesh.fsdp=8" in arguments:
        arguments = (arguments[0], "--config.mesh={'fsdp': 8}", arguments[2])
    done = command(*arguments)
    assert done.returncode != 0 and message in done.stderr and "Traceback" not in done.stderr
