"""Over an epoch every question is seen exactly once, on any number of processes, after any stop."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolrgpt_jax.data.batches import Order, PackedRows, batch_questions, train_batches
from smolrgpt_jax.data.prepared.reader import read_prepared
from smolrgpt_jax.data.prepared.writer import PrepareConfig, prepare
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.rows import FileLoader, RowShape, TokenisedQuestions
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import DataError
from tests.data.conftest import Folder
from tests.data.row_cases import assert_same, damage

QUESTIONS = 30
STEPS = 9  # more than three epochs of global batches of eight rows


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Ten pictures with one to five questions each, no two of the same wording."""
    folder = Folder(tmp_path_factory.mktemp("exact"))
    records = []
    for picture in range(10):
        folder.add_picture(f"{picture:06d}")
        for question in range(1 + picture % 5):
            name = f"{picture}-{question}"
            records.append(folder.record(name, f"{picture:06d}.png"))
            records[-1]["conversations"][0]["value"] = f"<image>\nThis is question {name}: <mask> or <mask>?"
    folder.write(records)
    assert len(records) == QUESTIONS
    return folder.root


@pytest.fixture(scope="module")
def rows_of(root, tokenizer):
    """Rows from the raw folder, and from prepared data that is one single file."""
    shape = RowShape(tokens=128, pictures=2, regions=6, image_tokens=4, image_size=16, mask_grid=8)
    raw = read_warehouse(root, "train")
    out = root / "prepared"
    summary = prepare({"train": raw}, out, PrepareConfig(image_size=16, mask_grid=8), workers=1)
    assert summary["train"]["shards"] == 1
    return {
        "raw": PackedRows(raw, tokenizer, shape, load=FileLoader(shape, cached_pictures=10)),
        "prepared": PackedRows(read_prepared(out, "train"), tokenizer, shape),
    }


def questions(batch) -> list[tuple[bytes, float]]:
    """The questions of a batch: their tokens and the sum of their picture."""
    found = []
    for row, ids in enumerate(batch["question_ids"]):
        for number in np.unique(ids[ids > 0]):
            own = ids == number
            place = batch["picture_ids"][row][own][0] - 1
            found.append((batch["tokens"][row][own].tobytes(), float(batch["images"][row, place].sum())))
    return found


def shares(rows, processes, *, num_epochs=None, weights=None, **options):
    """The batches of each process of a run with global batches of eight rows."""
    order = Order(8, 4, weights, num_epochs)
    return [
        train_batches([rows], order, share=share, num_threads=1, **options)
        for share in np.split(np.arange(order.batch_rows), processes)
    ]


@pytest.mark.parametrize("source", ["raw", "prepared"])
@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_every_question_is_seen_exactly_once_in_an_epoch(rows_of, source, processes):
    found = Counter(
        question
        for share in shares(rows_of[source], processes, num_epochs=1)
        for batch in share
        for question in questions(batch)
    )
    assert len(found) == QUESTIONS and set(found.values()) == {1}


def test_the_order_does_not_depend_on_how_the_data_is_stored(rows_of):
    for raw, ready in zip(
        *(shares(rows_of[source], 1, num_epochs=2)[0] for source in ("raw", "prepared")), strict=True
    ):
        assert_same(raw, ready)


def test_the_first_epoch_is_the_same_whether_one_or_twenty_are_asked_for(rows_of):
    size = len(rows_of["raw"])
    one, twenty = (next(iter(train_batches([rows_of["raw"]], Order(size, 4, num_epochs=epochs)))) for epochs in (1, 20))
    assert_same(one, twenty)
    assert len(list(train_batches([rows_of["raw"]], Order(size, 4, num_epochs=20)))) == 20


@pytest.mark.parametrize("weights", [None, [1.0]])
def test_batches_of_one_row_never_end_and_are_in_the_same_order(rows_of, weights):
    ones, fours = (iter(train_batches([rows_of["raw"]], Order(size, 4, weights))) for size in (1, 4))
    ones.set_state({"next_index": 40})
    fours.set_state({"next_index": 10})
    rows = [next(ones) for _ in range(4)]
    assert_same({name: np.concatenate([row[name] for row in rows]) for name in rows[0]}, next(fours))


@settings(deadline=None, max_examples=6, derandomize=True)
@given(st.integers(0, STEPS), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8]), st.booleans())
def test_the_order_after_a_stop_is_the_order_without_one(rows_of, step, before, after, mixed):
    rows = rows_of["raw"]
    options = {"weights": [1.0]} if mixed else {"num_epochs": 9}

    def take(iterators, count):
        return [[next(iterator) for iterator in iterators] for _ in range(count)]

    whole = take([iter(share) for share in shares(rows, 1, **options)], STEPS)
    stopped = [iter(share) for share in shares(rows, before, **options)]
    first = take(stopped, step)
    resumed = [iter(share) for share in shares(rows, after, **options)]
    for iterator in resumed:
        iterator.set_state(stopped[0].get_state())
    found = first + take(resumed, STEPS - step)
    for parts, (expected,) in zip(found, whole, strict=True):
        assert_same({key: np.concatenate([part[key] for part in parts]) for key in expected}, expected)
    assert resumed[0].get_state() == {"next_index": STEPS}


@pytest.mark.parametrize("mixed", [False, True])
def test_the_questions_of_a_batch_can_be_named_afterwards(root, rows_of, tokenizer, mixed):
    pictures = read_warehouse(root, "train")
    tokens = TokenisedQuestions(pictures, tokenizer)
    names = {
        tokens[i, j][0].tobytes(): question.id
        for i, picture in enumerate(pictures)
        for j, question in enumerate(picture.questions)
    }
    rows = [rows_of["raw"], rows_of["prepared"]]
    order = Order(4, 11, weights=(1, 2) if mixed else None)
    batches = iter(train_batches(rows, order))
    for index in range(12):
        found = [names[text] for text, _ in questions(next(batches))]
        assert found == batch_questions(rows, order, index)


def test_worker_processes_and_prefetching_change_nothing(rows_of):
    plain = list(shares(rows_of["raw"], 1, num_epochs=2)[0])
    seen = []

    def put(batch):
        seen.append(batch)
        return {**batch, "put": True}

    iterator = shares(rows_of["raw"], 1, num_epochs=2, workers=1, put=put)[0]
    first = [next(iterator) for _ in range(2)]
    state = iterator.get_state()
    iterator.close()
    assert len(seen) >= 2
    (iterator,) = shares(rows_of["raw"], 1, num_epochs=2, workers=2, put=put)
    iterator.set_state(state)
    found = first + list(iterator)
    iterator.close()
    for batch, expected in zip(found, plain, strict=True):
        assert batch.pop("put")
        assert_same(batch, expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_workers_find_bad_is_reported_or_stops(root, tokenizer, tmp_path, workers):
    import shutil

    copy = shutil.copytree(root, tmp_path / "copy")
    pictures = read_warehouse(copy, "train")
    damage(pictures[3])
    shape = RowShape(tokens=128, pictures=2, regions=6, image_tokens=4, image_size=16, mask_grid=8)
    bad = BadRecords("report")
    rows = PackedRows(pictures, tokenizer, shape, on_bad_record=bad)
    found = [q for batch in shares(rows, 1, num_epochs=1, workers=workers)[0] for q in questions(batch)]
    assert len(found) == QUESTIONS - len(pictures[3].questions)
    assert len(bad.reasons) == 1 and pictures[3].depth.name in bad.reasons[0]
    strict = PackedRows(pictures, tokenizer, shape)
    with pytest.raises(DataError, match=pictures[3].depth.name):
        list(shares(strict, 1, num_epochs=1, workers=workers)[0])


def test_rows_keep_no_texts(rows_of):
    kept = dataclasses.asdict(rows_of["raw"]._pictures[0])
    assert all(not question["prompt"] and question["answer"] is None for question in kept["questions"])
    assert [question["id"] for question in kept["questions"]] == ["0-0"]
