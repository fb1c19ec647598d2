"""The benchmark of conversion at a small size."""

from __future__ import annotations

import math

import pytest

from benchmarks import convert
from smolrgpt_jax.checkpoint.mapping import entries
from smolrgpt_jax.config import PRESETS


def demo_parameters():
    return sum(math.prod(e.torch_shape) for e in entries(PRESETS["demo"]))


@pytest.mark.slow
def test_it_prints_a_table_and_leaves_nothing(tmp_path, capsys):
    convert.main(["--size", "tiny", "--rounds", "1", "--workdir", str(tmp_path / "work")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{demo_parameters():,} parameters, float32, ")
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    assert rows == ["step", "copying the file", "`torch-to-jax`", "`jax-to-torch`"]
    assert lines[-1] == "model.safetensors and config.json came back byte for byte in every round."
    assert list((tmp_path / "work").iterdir()) == []


def test_the_checkpoint_is_the_same_for_the_same_seed(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert convert.make_checkpoint(tmp_path / name, PRESETS["demo"], seed) == demo_parameters()
    a, b, c = ((tmp_path / n / "model.safetensors").read_bytes() for n in "abc")
    assert a == b and a != c


def test_the_table_shows_ratios():
    results = {"copy": [(2.0, 0)], "torch-to-jax": [(3.0, 500_000_000)], "jax-to-torch": [(4.0, 250_000_000)]}
    assert convert.report(results, 1_000_000_000).splitlines()[2:] == [
        "| copying the file | 2.0 | 1 | | |",
        "| `torch-to-jax` | 3.0 | 1.5 | 500 MB | 0.50 |",
        "| `jax-to-torch` | 4.0 | 2.0 | 250 MB | 0.25 |",
    ]
