"""The benchmark of exported decoders: both sides write the same tokens, and the table holds every program."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from benchmarks import exported
from smolrgpt_jax.export.onnx_decoder import write_decoder
from smolrgpt_jax.export.onnx_graph import Graph


def test_in_float32_both_write_the_same_tokens(tmp_path):
    prompt = np.arange(exported.PROMPT, dtype=np.int32)
    config, params = exported.parameters("tiny", None)
    with Graph(tmp_path / "decoder.onnx") as graph:
        write_decoder(graph, config.decoder, params, exported.PROMPT + exported.TOKENS)
    ours = exported.with_jax(prompt, "tiny", None)
    theirs = exported.with_onnx(prompt, tmp_path / "decoder.onnx")
    tokens = list(ours())
    assert len(tokens) == exported.TOKENS and len(set(tokens)) > 3
    assert list(theirs()) == list(theirs()) == tokens


@pytest.mark.slow
def test_the_table_compares_every_program_with_ours(tmp_path):
    exported.main(["--size", "tiny", "--rounds", "1", "--out", str(tmp_path / "table.md")])
    _, _, ours, *onnx = (tmp_path / "table.md").read_text().splitlines()
    assert ours.startswith("| JAX, float32 |") and ours.count(" | 1.00 x | ") == 2
    assert [line.split(" | ")[0] for line in onnx] == ["| ONNX, float32", "| ONNX, int8", "| ONNX, int4"]
    assert onnx[0].endswith("| 100 of 100 |")
