"""The engine gives every question the answer it would get alone, in few programs, on any devices."""

from __future__ import annotations

import dataclasses
import itertools
import shutil

import jax
import numpy as np
import pytest

from smolrgpt_jax import sharding
from smolrgpt_jax.config import Compute
from smolrgpt_jax.data.prompts import choose_lengths
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.generation import answers, decode, slots
from smolrgpt_jax.generation.answers import generate_answers
from smolrgpt_jax.generation.engine import AnswerOptions, question_key
from smolrgpt_jax.generation.sampling import GREEDY, Sampling, choose
from tests.data.row_cases import damage
from tests.generation.conftest import answer_each, answer_ids, teacher_forced

NEW_TOKENS = 12
SAMPLED = Sampling(temperature=1.0, top_k=20, top_p=0.9)


def options(batch_size: int, **changes) -> AnswerOptions:
    return AnswerOptions(batch_size, NEW_TOKENS, progress=False, **changes)


@pytest.fixture(scope="module")
def alone(model, pictures) -> dict[str, list[int]]:
    """Greedy answers of the simple path, up to and with the first eos."""
    answers = {}
    for name, ids in answer_each(model, pictures, NEW_TOKENS).items():
        ends = np.flatnonzero(ids == model.tokenizer.eos_id)
        answers[name] = ids[: ends[0] + 1 if len(ends) else None].tolist()
    return answers


def test_answers_of_a_useful_variety(alone):
    """What the other tests rest on: many lengths, some answers cut, no two alike for the same reason."""
    lengths = {len(ids) for ids in alone.values()}
    assert len(lengths) >= 8 and NEW_TOKENS in lengths
    assert len({tuple(ids) for ids in alone.values()}) > len(alone) // 2


@pytest.mark.parametrize("batch_size", [4, 64])
def test_greedy_answers_are_those_of_the_simple_path(model, pictures, alone, batch_size):
    """With slots refilled all the time, and never."""
    assert answer_ids(model, pictures, options(batch_size)) == alone


def test_a_picture_cut_into_several_rows_gives_the_same_answers(model, pictures, alone):
    assert answer_ids(model, pictures[:3], options(8), row_tokens=200) == {
        name: ids for name, ids in alone.items() if name in {q.id for p in pictures[:3] for q in p.questions}
    }


def test_golden_greedy_tokens(golden):
    """The PyTorch release's own tokens, through prefill, admission and decoding."""
    model, out = golden.model, golden.outputs
    ids, attended = out["prompt_ids"], out["prompt_attention_mask"] != 0
    batch = model._batch(ids, attended, golden.images, golden.depths, golden.masks)
    # The engine's rows begin at the left.
    lengths = attended.sum(axis=1)
    for name in ("tokens", "positions", "picture_ids", "question_ids", "feature_index"):
        batch[name] = np.stack([np.roll(row, int(n)) for row, n in zip(batch[name], lengths)])
    count, steps = len(ids), out["greedy_ids"].shape[1]
    weights = decode.decode_weights(model.config, model.compute, model.params)
    state = slots.empty_slots(weights, count + 1, int(lengths.max()), steps)
    prefilled = slots.prefill(weights, batch)
    numbers = np.arange(count, dtype=np.int32)
    asked = slots.Asked(
        slot=count - numbers,
        row=numbers,
        begin=np.full(count, 5, np.int32),
        length=lengths.astype(np.int32) - 5,
        budget=np.full(count, steps, np.int32),
        keys=np.zeros((count, 2), np.uint32),
        state=np.zeros(count, np.int32),
    )
    state = slots.admit(state, prefilled, batch["tokens"], asked, prefix=5, longest=int(lengths.max()))
    state = decode.decode_until(np.int32(count + 1), weights, state, eos_id=model.eos_id, sampling=GREEDY)
    for number in numbers:
        expected = out["greedy_ids"][number]
        written = np.asarray(state.written)[count - number, : state.cache.steps[count - number]]
        np.testing.assert_array_equal(written, expected[: len(written)])
        assert len(written) == steps or written[-1] == model.eos_id


def test_budgets_cut_answers(model, pictures, alone):
    budgets = {name: 1 + number % 7 for number, name in enumerate(alone)}
    found = answer_ids(model, pictures, options(8), budgets)
    assert found == {name: ids[: budgets[name]] for name, ids in alone.items()}


def test_sampled_answers_do_not_depend_on_batches_or_order(model, pictures):
    first = answer_ids(model, pictures, options(8, sampling=SAMPLED, seed=5))
    turned = [dataclasses.replace(p, questions=p.questions[::-1]) for p in reversed(pictures[1:])]
    some = answer_ids(model, turned, options(4, sampling=SAMPLED, seed=5))
    assert len(some) < len(first) and some == {name: first[name] for name in some}
    other = answer_ids(model, pictures, options(8, sampling=SAMPLED, seed=6))
    assert sum(other[name] != first[name] for name in first) > len(first) // 2


def test_sampled_tokens_are_drawn_with_the_key_of_their_question_and_place(model, pictures):
    found = answer_ids(model, pictures[:2], options(8, sampling=SAMPLED, seed=5))
    for name, logits in teacher_forced(model, pictures[:2], found).items():
        key = jax.random.wrap_key_data(question_key(5, name), impl="threefry2x32")
        drawn = [
            int(choose(row[None], SAMPLED, jax.random.fold_in(key, place)[None])[0]) for place, row in enumerate(logits)
        ]
        assert drawn == found[name]


def test_few_programs_are_compiled(model, pictures):
    programs = (slots.prefill, slots.admit, decode.decode_until, slots.keep)
    before = [program._cache_size() for program in programs]
    # A length of answers that no other test has.
    changed = AnswerOptions(8, NEW_TOKENS + 1)
    answer_ids(model, pictures, changed)
    compiled = [program._cache_size() - count for program, count in zip(programs, before)]
    # One row length for so few rows; eight slots, later four.
    assert compiled[0] <= 1 and compiled[1:] == [1, 2, 1]
    answer_ids(model, pictures, dataclasses.replace(changed, seed=3))
    assert [program._cache_size() - count for program, count in zip(programs, before)] == compiled


def test_an_unreadable_picture_leaves_out_its_questions_only(model, warehouse, tmp_path, alone, monkeypatch):
    shutil.copytree(warehouse, tmp_path / "data")
    pictures = read_warehouse(tmp_path / "data", "train")
    damage(pictures[1])
    bad = BadRecords("report")
    found = generate_answers(model, pictures, options(8, on_bad_record=bad))
    lost = {question.id for question in pictures[1].questions}
    expected = {n: model.tokenizer.decode(ids) for n, ids in alone.items() if n not in lost}
    assert {name: given.text for name, given in found.items()} == expected
    assert list(found) == [q.id for p in pictures for q in p.questions if q.id not in lost]
    assert any("is truncated" in reason for reason in bad.reasons)
    # What another process has left out is told by all.
    monkeypatch.setattr(answers, "gather", lambda own: [own, [{}, [], ["gone.png: is not there"]]])
    generate_answers(model, pictures, options(8, on_bad_record=bad))
    assert len(bad.reasons) == 2 and bad.reasons[1] == "gone.png: is not there"
    with pytest.raises(DataError, match="is truncated"):
        generate_answers(model, pictures, options(8))


@pytest.mark.parametrize(
    "shape, sampling",
    [({"data": 8}, GREEDY), ({"data": 2, "fsdp": 2, "tensor": 2}, SAMPLED)],
    ids=["data-greedy", "data-fsdp-tensor-sampled"],
)
def test_eight_devices_answer_as_one(model, pictures, shape, sampling):
    mesh = sharding.make_mesh(shape)
    assert mesh.size == 8
    params = jax.device_put(model.params, sharding.param_shardings(model.params, mesh))
    spread = dataclasses.replace(model, params=params)
    settings = options(8, sampling=sampling, seed=5)
    assert answer_ids(spread, pictures, settings) == answer_ids(model, pictures, settings)


def test_bfloat16_answers(model, pictures):
    """The engine in bfloat16 against the simple path in bfloat16: first tokens, since rounding differs later."""
    half = dataclasses.replace(model, compute=Compute(dtype="bfloat16"))
    found = answer_ids(half, pictures, options(64))
    expected = answer_each(half, pictures, 1)
    same = sum(found[name][0] == ids[0] for name, ids in expected.items())
    assert same >= 0.8 * len(expected)


def test_no_questions_need_no_model(model):
    assert generate_answers(model, [], AnswerOptions(4, 2, progress=False)) == {}


def test_row_lengths_leave_the_least_padding():
    rng = np.random.default_rng(0)
    for _ in range(20):
        tokens = rng.integers(20, 400, rng.integers(1, 9)).tolist()
        rounded = sorted({-(-n // 32) * 32 for n in tokens})
        for most in (1, 2, 3):
            lengths = choose_lengths(tokens, most)
            assert len(lengths) <= most and lengths == sorted(lengths)
            best = min(
                _padded(tokens, [*some, rounded[-1]])
                for some in itertools.combinations(rounded[:-1], min(most, len(rounded)) - 1)
            )
            assert _padded(tokens, lengths) == best


def _padded(tokens: list[int], lengths: list[int]) -> int:
    return sum(min(length for length in lengths if length >= n) for n in tokens)
