"""Readers of the Open Spatial Dataset, SpatialRGPT-Bench and the SmolRGPT parquet sets, on small folders in their layouts."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from smolrgpt_jax.data.masks import decode, encode
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.sources.formats import read_bench, read_osd, read_smolrgpt
from smolrgpt_jax.errors import DataError

SIZE = (20, 30)  # height, width


def mask(seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(SIZE) < 0.3).astype(np.uint8)


def rle(seed: int) -> dict:
    return {"size": list(SIZE), "counts": encode(mask(seed)).counts.decode()}


def picture(path, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, SIZE[::-1], 7).save(path)


def chat(*texts):
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


@pytest.fixture
def osd(tmp_path):
    for name in ("a/1", "b"):
        picture(tmp_path / "images" / f"{name}.jpg")
        picture(tmp_path / "depths" / f"{name}.png")
    records = [
        {
            "filename": "a/1",
            "conversations": chat(
                "<image>\nIs <mask> <depth> wider than <mask> <depth>?",
                "Region [0] is.",
                "How tall is <mask> <depth>?",
                "2 m.",
            ),
            "rle": [rle(0), rle(1), rle(2)],
            "bbox": [[0, 0, 1, 1]] * 3,
        },
        {
            "filename": "b",
            "conversations": chat("What is <mask> <depth>?", "A box."),
            "rle": None,
            "bbox": [[2, 3, 8, 9]],
        },
        {"filename": "b", "conversations": chat("Where?", "Here."), "rle": [], "bbox": []},
    ]
    (tmp_path / "osd.json").write_text(json.dumps(records))
    return tmp_path


def test_osd_conversations_keep_their_turns_and_masks(osd):
    first, second = read_osd(osd, "osd.json")
    (question,) = first.questions
    assert question.turns == ["Is <mask> wider than <mask>?", "Region [0] is.", "How tall is <mask>?", "2 m."]
    assert [np.array_equal(decode(r), mask(i)) for i, r in enumerate(question.regions)] == [True] * 3
    assert first.image == osd / "images/a/1.jpg" and first.depth == osd / "depths/a/1.png"
    assert [q.id for q in second.questions] == ["b", "b#2"]
    box = decode(second.questions[0].regions[0])
    assert box.sum() == 36 and box[3:9, 2:8].all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"filename": "../b"}, "not a file inside"),
        ({"filename": "c"}, "is missing"),
        ({"rle": [rle(0)]}, "3 <mask> but 1 mask$"),
        ({"conversations": chat("Is <depth> there?", "Yes")}, "<depth> without its partner"),
        ({"conversations": chat("a", "b")[::-1]}, "speakers"),
        ({"conversations": chat("a", None)}, "turn 1 of the conversation has no text"),
        ({"rle": None, "bbox": [[5, 5, 5, 5]] * 3}, "box 5,5,5,5 is not"),
        ({"rle": None, "bbox": [[0, 0, 5, float("inf")]] * 3}, "box 0,0,5,inf is not"),
        ({"rle": None, "bbox": [[0, 0, 5, 10**400]] * 3}, "box 0,0,5,10+[.]+0+ is not"),
        ({"rle": None, "bbox": ["1122"] * 3}, "box '1122' is not x1,y1,x2,y2 with"),
        ({"rle": [{"size": [3, 3], "counts": "03"}] * 3}, "unreadable|pixels but the picture"),
    ],
)
def test_bad_osd_records_are_named_and_left_out(osd, change, reason):
    records = json.loads((osd / "osd.json").read_text())
    records[0] |= change
    (osd / "osd.json").write_text(json.dumps(records))
    with pytest.raises(DataError, match=reason) as caught:
        read_osd(osd, "osd.json")
    name = change.get("filename", "a/1")
    assert f"osd.json: record 0 of picture {name!r}: " in str(caught.value)
    bad = BadRecords("report")
    kept = read_osd(osd, "osd.json", on_bad_record=bad)
    assert len(bad.reasons) == 1 and [p.id for p in kept] == ["b"]


def test_bench_records(tmp_path):
    picture(tmp_path / "images/x/p.jpg")
    picture(tmp_path / "depths/x/p.png", "L")
    record = {
        "id": "qualitative_1",
        "image_info": {"file_path": "x/p.jpg", "height": SIZE[0], "width": SIZE[1]},
        "text_q": "Is Region [0] left of Region [1]?",
        "qa_info": {"type": "qualitative", "category": "left_predicate"},
        "conversations": chat("Is Region [0] <mask> <depth> left of Region [1] <mask> <depth>?", "Yes."),
        "bbox": [[0, 0, 4, 4], [8, 8, 12, 12]],
        "rle": [rle(0), rle(1)],
    }
    (tmp_path / "SpatialRGPT-Bench_v1.json").write_text(json.dumps([record]))
    (found,) = read_bench(tmp_path)
    (question,) = found.questions
    assert (question.id, question.category, question.answer) == ("qualitative_1", "left_predicate", "Yes.")
    assert question.prompt == "Is Region [0] <mask> left of Region [1] <mask>?"
    assert np.array_equal(decode(question.regions[1]), mask(1))
    assert found.depth == tmp_path / "depths/x/p.png"
    (tmp_path / "SpatialRGPT-Bench_v1.json").write_text(json.dumps([record | {"rle": None}]))
    assert decode(read_bench(tmp_path)[0].questions[0].regions[0]).sum() == 16
    assert read_bench(tmp_path, depths=None)[0].depth is None


def write_parquet(root, split, rows, multi=False):
    (root / "data").mkdir(parents=True, exist_ok=True)
    texts = pa.struct({"user": pa.string(), "assistant": pa.string()})
    region = pa.struct({"size": pa.list_(pa.int32()), "counts": pa.string()})
    schema = pa.schema(
        {
            "id_db": pa.int64(),
            "id": pa.string(),
            "rgb_image": pa.string(),
            "depth_image": pa.string(),
            "rle": pa.list_(region),
            "texts": pa.list_(texts) if multi else texts,
            "category": pa.string(),
            "normalized_answer": pa.string(),
            "dataset_name": pa.string(),
        }
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), root / "data" / f"{split}-00000-of-00001.parquet")


WAREHOUSE_ROW = {
    "id_db": 1,
    "id": "q1",
    "rgb_image": "000001.png",
    "depth_image": "000001_depth.png",
    "rle": [rle(0), rle(1)],
    "texts": {
        "user": "<image>\nIs <mask_rgb><mask_depth> left of <mask_rgb><mask_depth>?",
        "assistant": "To the left.",
    },
    "category": "left_right",
    "normalized_answer": "left",
    "dataset_name": "warehouse",
}


def test_parquet_with_splits(tmp_path):
    picture(tmp_path / "train/images/000001.png")
    picture(tmp_path / "train/depths/000001_depth.png", "L")
    distance = {"id": "q2", "category": "distance", "normalized_answer": "3.5"}
    write_parquet(tmp_path, "train", [WAREHOUSE_ROW, WAREHOUSE_ROW | distance])
    (found,) = read_smolrgpt(tmp_path, "train")
    left, metres = found.questions
    assert left.prompt == "Is <mask> left of <mask>?"
    assert left.normalized_answer == "left" and metres.normalized_answer == 3.5
    assert left.regions == metres.regions and left.regions[0] is metres.regions[0]
    assert found.image == tmp_path / "train/images/000001.png"
    with pytest.raises(DataError, match="no file val"):
        read_smolrgpt(tmp_path, "val")


def test_parquet_of_captions_and_of_conversations(tmp_path):
    picture(tmp_path / "images/c.jpg")
    empty = {"depth_image": None, "rle": None, "category": None, "normalized_answer": None}
    caption = WAREHOUSE_ROW | empty | {"rgb_image": "c.jpg"}
    turns = [{"user": "<image>\nWhat?", "assistant": "A box."}, {"user": "Where?", "assistant": "There."}]
    write_parquet(tmp_path, "a", [caption | {"texts": turns}], multi=True)
    (found,) = read_smolrgpt(tmp_path)
    assert found.depth is None and found.questions[0].category == "caption"
    assert found.questions[0].turns == ["What?", "A box.", "Where?", "There."]


def test_broken_parquet_and_rows_are_named(tmp_path):
    picture(tmp_path / "images/000001.png")
    picture(tmp_path / "depths/000001_depth.png", "L")
    write_parquet(tmp_path, "val", [WAREHOUSE_ROW, WAREHOUSE_ROW])
    with pytest.raises(DataError, match=r"of-00001.parquet: record 'q1' \(number 1\): the id occurs twice"):
        read_smolrgpt(tmp_path, "val")
    write_parquet(tmp_path, "val", [WAREHOUSE_ROW | {"texts": None}])
    with pytest.raises(DataError, match=r"of-00001.parquet: record 'q1' \(number 0\): has no texts"):
        read_smolrgpt(tmp_path)
    file = tmp_path / "data/val-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"val-00000-of-00001.parquet: is not a readable parquet file"):
        read_smolrgpt(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("id", None, "record 0 of picture '000001.png': has no id"),
        ("id", 1.5, "record 0 of picture '000001.png': its id 1.5 is neither text nor a whole number"),
        ("rgb_image", 1, "record 'q1' .*: names no picture"),
        ("rgb_image", "../000001.png", "record 'q1' .*: picture '../000001.png' is not a file inside"),
        ("depth_image", 1, "record 'q1' .*: names no picture or a depth picture that is no text"),
        ("depth_image", "/etc/passwd", "record 'q1' .*: picture '/etc/passwd' is not a file inside"),
        ("rle", "x", "record 'q1' .*: the masks are not a list"),
        ("rle", [{"size": None, "counts": None}], "record 'q1' .*: mask 0 is unreadable"),
        ("texts", "hello", "record 'q1' .*: has no texts"),
        ("texts", {"user": "x"}, "record 'q1' .*: turn 1 of the conversation has no text"),
        ("category", 3, "record 'q1' .*: category 3 is no text"),
        ("normalized_answer", [1], "record 'q1' .*: normalized answer"),
    ],
)
def test_a_parquet_column_of_another_type_is_named_by_record_and_file(tmp_path, column, value, reason):
    picture(tmp_path / "images/000001.png")
    picture(tmp_path / "depths/000001_depth.png", "L")
    write_parquet(tmp_path, "b", [WAREHOUSE_ROW | {"id": "q2"}])
    odd = pa.Table.from_pylist([WAREHOUSE_ROW | {column: value}])
    pq.write_table(odd, tmp_path / "data/a.parquet")
    with pytest.raises(DataError, match=f"data/a.parquet: {reason}"):
        read_smolrgpt(tmp_path)
    bad = BadRecords("report")
    (found,) = read_smolrgpt(tmp_path, on_bad_record=bad)
    assert [q.id for q in found.questions] == ["q2"] and len(bad.reasons) == 1


def test_a_parquet_file_without_a_column_or_with_broken_text_is_named(tmp_path):
    picture(tmp_path / "images/000001.png")
    picture(tmp_path / "depths/000001_depth.png", "L")
    file = tmp_path / "data/a.parquet"
    file.parent.mkdir()
    short = {key: value for key, value in WAREHOUSE_ROW.items() if key not in ("rle", "texts")}
    pq.write_table(pa.Table.from_pylist([short]), file)
    with pytest.raises(DataError, match="a.parquet: has no column rle, texts"):
        read_smolrgpt(tmp_path, on_bad_record=BadRecords("report"))
    table = pa.Table.from_pylist([WAREHOUSE_ROW])
    broken = pa.StringArray.from_buffers(1, *pa.array([b"\xff"], pa.binary()).buffers()[1:])
    pq.write_table(table.set_column(table.schema.get_field_index("category"), "category", broken), file)
    with pytest.raises(DataError, match="a.parquet: is not a readable parquet file"):
        read_smolrgpt(tmp_path)


def test_a_zero_of_a_numeric_answer_column_is_an_answer(tmp_path):
    picture(tmp_path / "images/000001.png")
    picture(tmp_path / "depths/000001_depth.png", "L")
    (tmp_path / "data").mkdir()
    inside = {"category": "distance", "normalized_answer": 0.0}
    pq.write_table(pa.Table.from_pylist([WAREHOUSE_ROW | inside]), tmp_path / "data/a.parquet")
    (found,) = read_smolrgpt(tmp_path)
    assert found.questions[0].normalized_answer == 0.0


def test_bench_records_without_id_are_named_by_their_picture(tmp_path):
    record = {"image_info": {"file_path": "x/p.jpg"}, "qa_info": {"category": "a"}, "conversations": []}
    (tmp_path / "SpatialRGPT-Bench_v1.json").write_text(json.dumps([record]))
    with pytest.raises(DataError, match=r"Bench_v1.json: record 0 of picture 'x/p.jpg': has no id"):
        read_bench(tmp_path)


def test_a_bench_record_whose_picture_has_no_name_is_told(tmp_path):
    turns = [{"from": "human", "value": "Is it dark?"}, {"from": "gpt", "value": "No."}]
    record = {"id": 1, "image_info": {"file_path": ""}, "qa_info": {"category": "a"}, "conversations": turns}
    (tmp_path / "SpatialRGPT-Bench_v1.json").write_text(json.dumps([record]))
    with pytest.raises(DataError, match=r"record '1' .*: picture '' is not a file inside the data folder"):
        read_bench(tmp_path)
