"""The benchmark for a GPU, run dry on the CPU."""

from __future__ import annotations

import dataclasses
import types

import jax
import pytest

from benchmarks import gpu, shared


@pytest.fixture
def tiny(monkeypatch):
    """The smallest model with one layer, few steps."""
    config = shared.SIZES["tiny"]
    config = config.replace(decoder=dataclasses.replace(config.decoder, layers=1))
    monkeypatch.setitem(shared.SIZES, "tiny", config)
    monkeypatch.setattr(gpu, "STEPS", 1)
    monkeypatch.setattr(gpu, "NEW_TOKENS", 4)
    return config


ASKED = "--size tiny --rows 1 --scenes 4 --pictures 1 --row_tokens 384 --batch_sizes 2 --dtype float32".split()


@pytest.mark.slow
def test_a_dry_run_measures_every_way_that_a_cpu_has(tiny, tmp_path, capsys):
    out = tmp_path / "table.md"
    gpu.main([*ASKED, "--out", str(out)])
    lines = out.read_text().splitlines()
    steps = [line.split(" | ") for line in lines[2:5]]
    assert [(step[0], step[1]) for step in steps] == [("| xla", "none"), ("| xla", "dots"), ("| xla", "full")]
    losses = {step[6] for step in steps}
    assert len(losses) == 1 and all(float(step[2]) > 0 and float(step[3]) > 0 for step in steps)
    assert "peak unknown" in lines[2]
    count, tokens, speed = map(float, lines[8].strip("| ").split(" | "))
    assert count == 2 and tokens > 0 and speed > 0
    assert "differ from the CPU's by 0.0e+00 and 0.0e+00" in lines[-1]
    assert "cudnn attention needs a GPU" in capsys.readouterr().err


def test_a_variant_that_does_not_fit_is_told_and_others_are_measured(tiny, monkeypatch, capsys):
    def too_large(config, params, batch, compute):
        if compute.remat == "none":
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return 0.5, 1.0, 2.0

    monkeypatch.setattr(gpu, "time_step", too_large)
    monkeypatch.setattr(gpu, "answer_rows", lambda *given: ["2 | 8 | 9"])
    monkeypatch.setattr(gpu, "against_cpu", lambda *given: (0.0, 1e-3))
    known = types.SimpleNamespace(device_kind="NVIDIA H200", platform="cpu")
    monkeypatch.setattr(gpu.jax, "devices", lambda *kind: [known])
    with pytest.raises(SystemExit) as stopped:
        gpu.main(ASKED)
    said = capsys.readouterr().out
    assert stopped.value.code == 1, "numbers that differ from the CPU's pass"
    assert "| xla | none | does not fit |" in said
    assert "%" in said.split("| xla | dots |")[1].splitlines()[0]
