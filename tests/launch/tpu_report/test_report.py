"""Analytic FLOPs, memory by kind and bad input, on programs compiled for the CPU."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from configs import default
from launch.tpu_report import compiling, costs, hlo, report
from launch.tpu_report.compiling import make_program
from smolrgpt_jax import sharding
from smolrgpt_jax.chips import Chip
from smolrgpt_jax.config import PRESETS, DecoderConfig, SmolRGPTConfig, VisionConfig

ROOT = Path(__file__).parents[3]
CHIP = Chip("test", 100.0, 64, 10.0, 5.0, 1.0, "nowhere", (1, 5))
TINY = SmolRGPTConfig(
    vision=VisionConfig(width=32, mlp_width=64, heads=2, layers=2, patch_size=16, image_size=64),
    decoder=DecoderConfig(width=64, mlp_width=128, heads=4, kv_heads=2, layers=5, vocab_size=128),
)


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", TINY)


def run_config(**changes) -> dict:
    config = default.get_config()
    config.model.update({"preset": "tiny", "compute_dtype": "float32", "remat": "none"})
    config.batch_rows = 8
    config.data.row_tokens = 64
    config.data.row_regions = 3
    return config.to_dict() | changes


@pytest.mark.parametrize(
    ("stage", "remat"),
    [
        ("connector_alignment", "none"),
        ("sft", "full"),
        *(
            pytest.param(stage, remat, marks=pytest.mark.slow)
            for stage in ("connector_alignment", "refiner_alignment", "sft", "backbone")
            for remat in ("none", "full")
            if (stage, remat) not in (("connector_alignment", "none"), ("sft", "full"))
        ),
    ],
)
def test_analytic_training_flops_are_those_of_the_compiled_step(stage, remat):
    run = run_config(stage=stage)
    run["model"]["remat"] = remat
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    program = make_program(run, mesh)
    compiled, _ = compiling.compile_program(program)
    # Rotation is done by a product, forward, back and again where it is recomputed, which is none of the model's.
    d, tokens = TINY.decoder, run["batch_rows"] * run["data"]["row_tokens"]
    turning = 2 * tokens * d.layers * (d.heads + d.kv_heads) * d.head_dim**2 * (3 if remat == "full" else 2)
    found = costs.program_flops(hlo.parse(compiled.as_text()))
    assert found - turning == pytest.approx(program.computed_flops, rel=0.01)


def test_report_of_a_train_step_over_eight_devices():
    mesh = sharding.make_mesh({"data": 2, "fsdp": 4})
    program = make_program(run_config(strategy="fsdp"), mesh)
    compiled, _ = compiling.compile_program(program)
    found = report.report_on(program, compiled, mesh, CHIP)
    assert found["run"] == "compiled, not run" and found["devices"] == 8
    assert found["flops"]["compiled_over_analytic"] == pytest.approx(1, rel=0.05)
    memory = found["memory"]
    assert sum(memory["arguments_by_kind"].values()) == memory["arguments"]
    parameters = sum(memory["arguments_by_kind"][k] for k in ("trained parameters", "frozen parameters"))
    whole = sum(p.size * 4 for p in jax.tree.leaves(list(program.arguments.values())[:2]))
    assert whole / 8 < parameters < whole / 2
    assert {c["kind"] for c in found["collectives"]} >= {"all-gather", "all-reduce"}
    assert "compiled, not run: 8 rows on 8 devices, data 2 x fsdp 4 x tensor 1" in report.as_text(found)


def test_zero1_and_fsdp_keep_parameters_and_optimiser_state_in_parts():
    mesh = sharding.make_mesh({"fsdp": 8})
    kept = {s: make_program(run_config(strategy=s), mesh).argument_bytes() for s in ("data", "zero1", "fsdp")}
    for what in ("trained parameters", "optimiser state"):
        assert kept["zero1"][what] == pytest.approx(kept["fsdp"][what], rel=0.02)
        assert kept["zero1"][what] < kept["data"][what] / 4


def test_earlier_stages_keep_less():
    mesh = sharding.make_mesh({"fsdp": 8})
    states = [
        make_program(run_config(stage=s), mesh).argument_bytes()["optimiser state"]
        for s in ("connector_alignment", "refiner_alignment", "sft")
    ]
    assert states[0] < states[1] < states[2]


@pytest.mark.parametrize("what", ["prefill", "decode"])
def test_generation(what):
    mesh = sharding.make_mesh({"data": 4, "fsdp": 2})
    program = make_program(run_config(), mesh, what, new_tokens=9)
    compiled, _ = compiling.compile_program(program)
    found = report.report_on(program, compiled, mesh, CHIP)
    assert found["flops"]["compiled_over_analytic"] == pytest.approx(1, rel=0.05)
    assert not found["loops_of_unknown_length"]
    runs = {loop["runs"] for loop in found["loops"]}
    assert TINY.decoder.layers in runs and ((9 in runs) == (what == "decode"))


@pytest.mark.parametrize("limit", [0, 1, 5, 8, 37, 200])
def test_bisection_finds_the_largest_batch_to_within_an_eighth(limit):
    tried = []

    def fits(n: int) -> bool:
        tried.append(n)
        return n <= limit

    found = compiling.largest_fitting(fits, start=8)
    assert found <= limit <= found + max(1, found // 8) - (found < 8)
    assert len(tried) == len(set(tried)) <= 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_rows": 12}, "a batch of 12 rows does not divide into 1 accumulation part"),
        ({"accumulation": 3}, "a batch of 8 rows does not divide into 3 accumulation part"),
        ({"stage": "sfft"}, "config.stage 'sfft' is not one of backbone, "),
        ({"strategy": "zero3"}, "no strategy 'zero3', only data, zero1, fsdp"),
    ],
)
def test_bad_runs_are_refused(changes, message):
    run = run_config(**changes)
    with pytest.raises(ValueError, match=message) as error:
        make_program(run, sharding.make_mesh(run["mesh"], strategy=run["strategy"]))
    assert "\n" not in str(error.value)


def command(*arguments: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "launch.compile_for_tpu", "--config=configs/stage3_sft.py", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True)


def test_the_command_names_an_unknown_topology(tmp_path):
    done = command("--topology=v5e:3x3", f"--out={tmp_path / 'report.json'}")
    assert done.returncode != 0 and "error: no topology v5e:3x3; nearest: v5e:" in done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())


def test_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs libtpu, which is not installed: pip install"):
        compiling.topology_devices("v5e:2x2")
