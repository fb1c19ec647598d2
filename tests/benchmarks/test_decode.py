"""The benchmark of decoders: all write the same tokens, and the table says what was measured."""

from __future__ import annotations

import itertools
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

from benchmarks import decode
from benchmarks.decode import LLAMA, OURS, PLAIN, Runner, Turn

PROMPT = np.arange(decode.PROMPT, dtype=np.int32)


def test_in_float32_all_write_the_same_tokens(tmp_path):
    tokens, runners = decode.write_weights(None, "tiny", tmp_path)
    assert tokens == 640 and list(runners) == [OURS, PLAIN, "ONNX, int8", "ONNX, int4", "transformers, float32"]
    written = {name: runners[name].make(PROMPT, runners[name].weights) for name in runners if "float32" in name}
    first = {name: list(itertools.islice(write(), decode.TOKENS)) for name, write in written.items()}
    assert len(first) == 3 and len(set(first[OURS])) > 3
    assert all(tokens == first[OURS] for tokens in first.values())
    assert [list(itertools.islice(write(), decode.TOKENS)) for write in written.values()] == list(first.values())
    assert runners[OURS].size > 2 * runners["ONNX, int8"].size > 2 * runners["ONNX, int4"].size


def test_a_turn_answers_a_second_time():
    answers = iter([[7] * decode.TOKENS, range(decode.TOKENS)])
    turn = decode.take_turn(Runner(lambda prompt, weights: lambda: next(answers), None, 0), PROMPT)
    assert turn.tokens == list(range(decode.TOKENS)) and len(turn.rest) == decode.TOKENS - 1
    assert turn.first > 0 and min(turn.rest) > 0 and turn.memory >= 0


def turns(first: float, each: float, memory: float, token: int) -> list[Turn]:
    """Three turns, of which the first was slow."""
    tokens = [token] * decode.TOKENS
    return [Turn(tokens, first * slow, [each * slow] * (decode.TOKENS - 1), memory / slow) for slow in (9, 1, 1)]


def test_the_table_compares_medians_with_ours_and_with_the_speed_of_memory():
    """At 10 GB/s a token of 400 MB takes at least 40 ms."""
    runners = {OURS: (400, 50), PLAIN: (400, 40), "ONNX, int8": (100, 20)}
    runners = {name: Runner(None, None, megabytes * 10**6) for name, (megabytes, _) in runners.items()}
    taken = {OURS: turns(0.5, 0.080, 900, 1), PLAIN: turns(0.4, 0.050, 600, 1), "ONNX, int8": turns(0.2, 0.016, 150, 2)}
    assert decode.table(runners, taken, speed=10e9).splitlines()[2:] == [
        "| JAX, float32 | 500 | 12.5 | 1.00 x | 400 | 50% | 900 | 1.50 | 100 of 100 |",
        "| ONNX, float32 | 400 | 20.0 | 1.60 x | 400 | 80% | 600 | 1.00 | 100 of 100 |",
        "| ONNX, int8 | 200 | 62.5 | 5.00 x | 100 | 62% | 150 | 0.25 | 0 of 100 |",
        f"| {LLAMA} | no GGUF file | | | | | | | |",
    ]


def test_llama_cpp_that_is_not_installed_is_a_line_of_the_table(monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    runners = {name: Runner(None, None, 1) for name in (OURS, PLAIN, LLAMA)}
    taken = {name: turns(1, 1, 1, 1) for name in (OURS, PLAIN)}
    *_, ours, plain, line = decode.table(runners, taken, speed=1.0).splitlines()
    assert line == f"| {LLAMA} | not installed | | | | | | | |" and line.count("|") == plain.count("|")


def test_llama_cpp_reads_the_prompt_again_and_chooses_greedily(monkeypatch, tmp_path):
    calls = []

    class Llama:
        def __init__(self, file, **how):
            calls.append((file, how["n_ctx"], how["n_threads"]))

        def reset(self):
            calls.append("reset")

        def generate(self, prompt, *, temp, repeat_penalty):
            calls.append((prompt, temp, repeat_penalty))
            yield from itertools.count()

    monkeypatch.setitem(sys.modules, "llama_cpp", SimpleNamespace(Llama=Llama))
    write = decode.with_llama(PROMPT, tmp_path / "model.gguf")
    assert [list(itertools.islice(write(), 3)) for _ in range(2)] == [[0, 1, 2]] * 2
    again = ["reset", (PROMPT.tolist(), 0.0, 1.0)]
    assert calls == [(str(tmp_path / "model.gguf"), 200, decode.CORES), *again, *again]


def test_the_speed_of_memory_is_in_bytes(monkeypatch):
    monkeypatch.setattr(decode, "by_turns", lambda runs, rounds: [runs[0]() and 2.0])
    assert decode.bandwidth(1000) == 4 * 1000 / 2


def test_nothing_to_measure_is_one_sentence():
    with pytest.raises(SystemExit, match="error: give --language, --size or both"):
        decode.main([])


@pytest.mark.slow
def test_every_program_is_measured_in_a_process_of_its_own(tmp_path):
    pytest.importorskip("gguf")
    from tests.convert.gguf_files import write_gguf

    write_gguf(tmp_path / "model.gguf", "Q4_1")
    asked = ["--language", str(tmp_path / "model.gguf"), "--rounds", "1"]
    decode.main([*asked, "--out", str(tmp_path / "table.md")])
    text = (tmp_path / "table.md").read_text()
    assert "threads read" in text
    names = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if line.startswith("| ")]
    assert names[1:] == [OURS, PLAIN, "ONNX, int8", "ONNX, int4", "transformers, float32", LLAMA]
    assert text.count(" | 100 of 100 |") >= 3
