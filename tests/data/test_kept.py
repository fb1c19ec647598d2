"""Tokens and plans that are kept equal those that are made, and are made anew whenever what they came from differs."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import io
import multiprocessing
import shutil

import numpy as np
import pytest

from smolrgpt_jax.checkpoint.load import tokenizer_files, tokenizer_from_files
from smolrgpt_jax.data import batches, kept, plan
from smolrgpt_jax.data.batches import PackedRows, data_facts
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.kept import place_of
from smolrgpt_jax.data.prepared.reader import read_prepared
from smolrgpt_jax.data.prepared.writer import PrepareConfig, prepare
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.rows import TokenisedQuestions
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.data.trained_on import TrainedOn
from smolrgpt_jax.errors import DataError
from tests.data.conftest import DATA_FILES
from tests.data.row_cases import assert_same

SMALL = PrepareConfig(image_size=16, mask_grid=8)


@pytest.fixture
def prepared(filled):
    prepare({"train": read_warehouse(filled.root, "train")}, filled.root / "prepared", SMALL, workers=1)
    return filled.root / "prepared"


def rows_of(folder, tokenizer, shape, cache="", bad=BadRecords()) -> PackedRows:
    pictures = read_prepared(folder, "train")
    questions = TokenisedQuestions(pictures, tokenizer, place=place_of(pictures, tokenizer, cache))
    return PackedRows(pictures, tokenizer, shape, questions=questions, on_bad_record=bad)


def plain(folder, tokenizer, shape) -> PackedRows:
    return PackedRows(read_prepared(folder, "train"), tokenizer, shape)


def assert_equal(ours: PackedRows, expected: PackedRows) -> None:
    assert ours.plan == expected.plan
    assert data_facts([ours], "training") == data_facts([expected], "training")
    assert_same(ours.batch(range(len(ours))), expected.batch(range(len(expected))))


def files_of(folder) -> set[str]:
    return {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("cache", ["", "elsewhere"])
def test_what_is_read_back_equals_what_was_made(prepared, tokenizer, shape, tmp_path, cache, monkeypatch):
    folder = tmp_path / cache if cache else prepared / "kept"
    expected = plain(prepared, tokenizer, shape)
    assert not folder.exists()
    assert_equal(rows_of(prepared, tokenizer, shape, cache and str(folder)), expected)
    files = files_of(folder)
    assert len(files) == 3 and not (cache and (prepared / "kept").exists())
    monkeypatch.setattr(ChatTokenizer, "conversations", None)
    monkeypatch.setattr(plan, "plan_rows", None)
    again = rows_of(prepared, ChatTokenizer.load(DATA_FILES / "text/tokenizer"), shape, cache and str(folder))
    assert_equal(again, expected)
    assert files_of(folder) == files
    facts = data_facts([expected], "training")
    monkeypatch.setattr(batches, "told_by", None)
    assert data_facts([again], "training") == facts


def test_moved_data_keeps_its_tokens(prepared, tokenizer, shape, tmp_path, monkeypatch):
    expected = rows_of(prepared, tokenizer, shape)
    moved = shutil.copytree(prepared, tmp_path / "moved")
    monkeypatch.setattr(ChatTokenizer, "conversations", None)
    assert_equal(rows_of(moved, tokenizer, shape), expected)


def changed_record(prepared, filled, tokenizer, shape):
    pictures = read_warehouse(filled.root, "train")
    first, *others = pictures[2].questions
    questions = (dataclasses.replace(first, answer=first.answer.replace("meters", "metres")), *others)
    pictures[2] = dataclasses.replace(pictures[2], questions=questions)
    prepare({"train": pictures}, filled.root / "changed", SMALL, workers=1)
    shutil.copy(filled.root / "changed/questions-train.parquet", prepared)
    return tokenizer, shape


def other_vocabulary(prepared, filled, tokenizer, shape):
    return ChatTokenizer.load("configs/demo_tokenizer"), dataclasses.replace(shape, tokens=256)


@pytest.mark.parametrize(
    ("change", "made"),
    [
        (changed_record, 3),
        (other_vocabulary, 3),
        (lambda *given: (given[2].with_format(closing_answer=True), given[3]), 3),
        (lambda *given: (given[2].with_format(region_names=True), given[3]), 3),
        (lambda *given: (given[2], dataclasses.replace(given[3], tokens=160)), 1),
        (lambda *given: (given[2], dataclasses.replace(given[3], pictures=1)), 1),
        (lambda *given: (given[2], dataclasses.replace(given[3], regions=3)), 1),
    ],
    ids=["record", "tokenizer", "closing_answer", "region_names", "row length", "row pictures", "row regions"],
)
def test_what_was_made_from_anything_else_is_made_anew(prepared, filled, tokenizer, shape, change, made):
    before = data_facts([rows_of(prepared, tokenizer, shape)], "a")
    own = change(prepared, filled, tokenizer, shape)
    expected = plain(prepared, *own)
    assert before != data_facts([expected], "a")
    assert_equal(rows_of(prepared, *own), expected)
    assert len(files_of(prepared / "kept")) == 3 + made


def test_what_other_code_made_is_made_anew(prepared, tokenizer, shape, monkeypatch):
    rows_of(prepared, tokenizer, shape)
    monkeypatch.setattr(kept, "_CODE", kept._CODE[1:])
    rows_of(prepared, tokenizer, shape)
    assert len(files_of(prepared / "kept")) == 4


def test_a_resumed_run_finds_what_its_start_kept(prepared, tokenizer, shape):
    rows_of(prepared, tokenizer, shape)
    resumed = tokenizer_from_files(tokenizer_files(tokenizer.with_format(trained_on=TrainedOn("warehouse"))))
    rows_of(prepared, resumed, shape)
    assert len(files_of(prepared / "kept")) == 2


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def one_bit_else(content: bytes) -> bytes:
    # In the middle: within an array, where only its checksum tells.
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [truncated, one_bit_else, lambda content: b""], ids=["half", "bit", "empty"])
def test_a_damaged_file_is_made_anew_with_one_sentence(prepared, tokenizer, shape, damage, caplog):
    expected = rows_of(prepared, tokenizer, shape)
    for file in (prepared / "kept").iterdir():
        whole = file.read_bytes()
        file.write_bytes(damage(whole))
        caplog.clear()
        assert_equal(rows_of(prepared, tokenizer, shape), expected)
        assert [f"{file} is damaged: made anew" in record.getMessage() for record in caplog.records] == [True]
        assert "\n" not in caplog.text.rstrip("\n")
        with np.load(file) as found, np.load(io.BytesIO(whole)) as before:
            assert_same(dict(found), dict(before))
    assert len(files_of(prepared / "kept")) == 3


def test_where_nothing_can_be_written_a_run_does_without(prepared, tokenizer, shape, tmp_path, caplog):
    (tmp_path / "file").touch()
    ours = rows_of(prepared, tokenizer, shape, str(tmp_path / "file/folder"))
    assert_equal(ours, plain(prepared, tokenizer, shape))
    # Once, though more than one file is kept.
    assert caplog.text.count("can be kept") == 1 and "for the next start, see config.data.cache" in caplog.text


def test_a_folder_that_cannot_be_read_is_not_called_damaged(prepared, tokenizer, shape, monkeypatch, caplog):
    def refused(file):
        raise PermissionError(13, "Permission denied", str(file))

    rows_of(prepared, tokenizer, shape)
    monkeypatch.setattr(np, "load", refused)
    assert_equal(rows_of(prepared, tokenizer, shape), plain(prepared, tokenizer, shape))
    assert [record.getMessage() for record in caplog.records] == [
        f"what is kept in {prepared / 'kept'} cannot be read (Permission denied)"
    ]


def test_bad_records_are_told_again(prepared, tokenizer, shape):
    narrow = dataclasses.replace(shape, regions=2)
    expected, found = BadRecords("report"), [BadRecords("report") for _ in range(2)]
    PackedRows(read_prepared(prepared, "train"), tokenizer, narrow, on_bad_record=expected)
    for bad in found:
        rows_of(prepared, tokenizer, narrow, bad=bad)
        assert bad.reasons == expected.reasons != [] and bad.summary() == expected.summary()
    with pytest.raises(DataError) as error:
        rows_of(prepared, tokenizer, narrow)
    assert str(error.value) == expected.reasons[0]


def facts_of(folder, shape) -> dict[str, int | str]:
    tokenizer = ChatTokenizer.load(DATA_FILES / "text/tokenizer")
    return data_facts([rows_of(folder, tokenizer, shape)], "training")


@pytest.mark.slow
def test_two_processes_at_once_do_no_harm(prepared, tokenizer, shape):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        found = [future.result() for future in [pool.submit(facts_of, prepared, shape) for _ in range(2)]]
    assert found == [data_facts([plain(prepared, tokenizer, shape)], "training")] * 2
    assert len(files_of(prepared / "kept")) == 3
    assert facts_of(prepared, shape) == found[0]


def test_nothing_is_kept_of_raw_folders(filled, tokenizer):
    pictures = read_warehouse(filled.root, "train")
    assert place_of(pictures, tokenizer) is place_of([], tokenizer) is None
