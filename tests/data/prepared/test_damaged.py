"""Prepared data that someone changed: told in one sentence with the file, never read as something else."""

from __future__ import annotations

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smolrgpt_jax.data.batches import PackedRows
from smolrgpt_jax.data.prepared.columns import SCHEMA
from smolrgpt_jax.data.prepared.reader import load_stored, read_prepared
from smolrgpt_jax.data.prepared.writer import PrepareConfig, prepare
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import DataError


@pytest.fixture
def prepared(filled):
    out = filled.root / "prepared"
    prepare({"train": read_warehouse(filled.root, "train")}, out, PrepareConfig(16, 8), workers=1)
    return out


def change(folder, **fields) -> None:
    """Writes other fields into the first question, as who filters questions might."""
    file = folder / "questions-train.parquet"
    rows = pq.read_table(file).to_pylist()
    pq.write_table(pa.Table.from_pylist([rows[0] | fields, *rows[1:]], SCHEMA), file)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"id": "1-0"}, "the id '1-0' occurs twice"),
        ({"id": None}, "the column id lacks 1 value"),
        ({"picture": None}, "the column picture lacks 1 value"),
        ({"turns": None}, "the column turns lacks 1 value"),
        ({"turns": ["How far?", None]}, "the column turns lacks 1 value"),
        ({"regions": [0, 0]}, "picture 0 ('000000'): question '0-0' holds 1 <mask> for 2 regions"),
        ({"turns": []}, "picture 0 ('000000'): a question without a turn"),
        ({"regions": [None, 0]}, "the column regions lacks 1 value"),
        (
            {"normalized_answer": "far"},
            "picture 0 ('000000'): normalized answer 'far' of a distance question is no number",
        ),
    ],
)
def test_questions_that_no_preparing_writes_are_told(prepared, fields, reason):
    change(prepared, **fields)
    with pytest.raises(DataError, match=re.escape(f"{prepared}/questions-train.parquet: {reason}")):
        read_prepared(prepared, "train")


def test_only_the_users_marks_are_counted(prepared):
    (first, *_) = read_prepared(prepared, "train")[0].questions
    change(prepared, turns=[first.prompt, f"{first.answer} <mask>"])
    assert read_prepared(prepared, "train")[0].questions[0].answer == f"{first.answer} <mask>"


@pytest.mark.parametrize("column", ["id", "turns"])
def test_a_text_that_is_no_utf8_is_told_without_its_bytes(prepared, column):
    file = prepared / "questions-train.parquet"
    table = pq.read_table(file)
    content = pa.array([[b"far \xff"] if column == "turns" else b"far \xff"] * len(table))
    text = content.cast(pa.list_(pa.binary()) if column == "turns" else pa.binary()).view(SCHEMA.field(column).type)
    pq.write_table(table.set_column(table.column_names.index(column), column, text), file)
    with pytest.raises(DataError, match=r"train.parquet: is not a readable parquet file \(.*Invalid UTF8") as error:
        read_prepared(prepared, "train")
    assert "far" not in str(error.value)


@pytest.mark.parametrize("number", [99, -1])
def test_a_region_that_no_mask_was_prepared_for_is_told(prepared, tokenizer, shape, number):
    first = read_prepared(prepared, "train")[0].questions[0]
    change(prepared, regions=[number] * len(first.regions))
    pictures = read_prepared(prepared, "train")
    reason = f"{prepared}: picture 0 of train has [0-9]+ masks, a question is about mask {number}"
    with pytest.raises(DataError, match=reason):
        load_stored(pictures[0])
    with pytest.raises(DataError, match=f"record '{first.id}'.*{reason}"):
        rows = PackedRows(pictures, tokenizer, shape)
        rows.batch(range(len(rows)))
    bad = BadRecords("report")
    rows = PackedRows(pictures, tokenizer, shape, on_bad_record=bad)
    rows.batch(range(len(rows)))
    assert bad.reasons


def test_a_depth_that_was_not_prepared_is_told(prepared):
    change(prepared, has_depth=False)
    with pytest.raises(DataError, match=f"{prepared}: picture 0 of train has a depth, its questions say otherwise"):
        load_stored(read_prepared(prepared, "train")[0])


@pytest.mark.parametrize(
    "fields", [{"image_size": "16"}, {"image_size": None}, {"mask_grid": 8.0}, {"mask_grid": -8}, {"depth_mode": 1}]
)
def test_sizes_that_no_data_is_prepared_with_are_told(prepared, fields):
    file = prepared / "prepared.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    ((name, value),) = fields.items()
    with pytest.raises(DataError, match=re.escape(f"{file}: {name} is {value!r}, which no data is prepared with")):
        read_prepared(prepared, "train")
