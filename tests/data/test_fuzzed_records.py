"""One arbitrarily broken record among good ones: the good ones come back as they are, the broken one is read or named."""

from __future__ import annotations

import dataclasses
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from smolrgpt_jax.data import masks
from smolrgpt_jax.data.records import BadRecords, Picture, Question, check_question
from smolrgpt_jax.data.sources.formats import read_bench, read_captions, read_osd, read_smolrgpt, read_warehouse
from smolrgpt_jax.errors import DataError
from tests.mutations import broken, reproducible

HEIGHT, WIDTH = 12, 20
NAMES = ("good", "fine", "broken")


def rle(*box: int) -> dict:
    region = masks.encode(masks.box_mask(box, HEIGHT, WIDTH))
    return {"size": [HEIGHT, WIDTH], "counts": region.counts.decode()}


RLE_PAIR = [rle(1, 1, 5, 5), rle(6, 2, 9, 9)]


def chat(question: str, answer: str) -> list[dict]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def warehouse_record(name: str) -> dict:
    return {
        "id": f"id of {name}",
        "image": f"{name}.png",
        "conversations": chat("<image>\nHow far is <mask> from <mask>?", "It is 2.5 meters."),
        "rle": RLE_PAIR,
        "category": "distance",
        "normalized_answer": 2.5,
        "freeform_answer": "",
    }


def unanswered_record(name: str) -> dict:
    record = warehouse_record(name)
    return {key: record[key] for key in ("id", "image", "rle")} | {"conversations": record["conversations"][:1]}


def caption_record(name: str) -> dict:
    return {"id": f"id of {name}", "image": f"{name}.png", "conversations": chat("Describe it.\n<image>", "A hall.")}


def osd_record(name: str) -> dict:
    question = "Is <mask> <depth> wider than <mask> <depth>?"
    return {
        "filename": name,
        "conversations": chat(question, "Yes.") + chat("Sure?", "Yes."),
        "rle": RLE_PAIR if name != "broken" else None,
        "bbox": [[1, 1, 5, 5], [6.5, 2, 9, 9]],
    }


def bench_record(name: str) -> dict:
    return {
        "id": f"id of {name}",
        "image_info": {"file_path": f"{name}.png", "height": HEIGHT, "width": WIDTH},
        "text_q": "",
        "qa_info": {"type": "qualitative", "category": "left_predicate"},
        "conversations": chat("Is Region [0] <mask> <depth> left of Region [1] <mask> <depth>?", "Yes."),
        "bbox": [[1, 1, 5, 5], [6, 2, 9, 9]],
        "rle": RLE_PAIR,
    }


def parquet_record(name: str) -> dict:
    marks = "<mask_rgb><mask_depth>"
    return {
        "id_db": 1,
        "id": f"id of {name}",
        "rgb_image": f"{name}.png",
        "depth_image": f"{name}_depth.png",
        "rle": RLE_PAIR,
        "texts": {"user": f"<image>\nHow far is {marks} from {marks}?", "assistant": "2.5 meters."},
        "category": "distance",
        "normalized_answer": "2.5",
        "dataset_name": "warehouse",
    }


@dataclasses.dataclass(frozen=True)
class Format:
    """One format on disk: a valid record about a picture, how records are read, and where a record has its picture's name."""

    record: Callable[[str], dict]
    read: Callable[[Path, BadRecords], list[Picture]]
    picture: Callable[[dict], Any] = lambda record: record.get("image")


def read_file(reader: Callable[..., list[Picture]], *arguments: str, **folders: str | None):
    return lambda root, bad: reader(root, *arguments, **folders, on_bad_record=bad)


def bench_picture(record: dict) -> Any:
    info = record.get("image_info")
    return info.get("file_path") if isinstance(info, dict) else None


FORMATS = {
    "warehouse": Format(warehouse_record, read_file(read_warehouse, "all", "records.json")),
    "test split": Format(unanswered_record, read_file(read_warehouse, "all", "records.json")),
    "captions": Format(caption_record, read_file(read_captions, "records.json", "all/images")),
    "osd": Format(
        osd_record,
        read_file(read_osd, "records.json", images="all/images", depths="all/images"),
        lambda record: record.get("filename"),
    ),
    "bench": Format(
        bench_record, read_file(read_bench, "records.json", images="all/images", depths=None), bench_picture
    ),
    "smolrgpt": Format(parquet_record, read_file(read_smolrgpt, "all"), lambda record: record.get("rgb_image")),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fuzzed")
    for kind in ("images", "depths"):
        (folder / "all" / kind).mkdir(parents=True)
    (folder / "data").mkdir()
    rgb = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for name in NAMES:
        Image.fromarray(rgb).save(folder / f"all/images/{name}.png")
        Image.fromarray(rgb).save(folder / f"all/images/{name}.jpg")
        Image.fromarray(rgb[..., 0]).save(folder / f"all/depths/{name}_depth.png")
    return folder


def write_json(root: Path, records: list) -> Path:
    file = root / "records.json"
    file.write_text(json.dumps(records))
    return file


def write_parquet(root: Path, records: list, name: str) -> Path:
    file = root / "data" / name
    pq.write_table(pa.Table.from_pylist(records), file)
    return file


def by_id(pictures: list[Picture]) -> dict[str, tuple]:
    return {q.id: (p.image, p.depth, q) for p in pictures for q in p.questions}


def assert_valid(root: Path, picture: Path, depth: Path | None, question: Question) -> None:
    for file in filter(None, (picture, depth)):
        assert file.is_file() and file.resolve().is_relative_to(root.resolve())
    check_question(question, categories=None, need_answer=question.answer is not None)
    texts = [question.id, question.category, *question.turns]
    assert all(isinstance(text, str) for text in texts) and "".join(texts).encode()
    value = question.normalized_answer
    kinds = {"distance": float, "count": int, "mcq": int}
    assert value is None or type(value) is kinds.get(question.category, str)
    for region in question.regions:
        assert (region.height, region.width) == (HEIGHT, WIDTH)
        weights = masks.resample_rle(region, 8)
        assert weights.min() >= 0 and weights.max() <= 1


def named(record: Any, place: int, picture: Callable[[dict], Any]) -> str:
    """What a message about the record has to hold."""
    if not isinstance(record, dict):
        return f"record {place}"
    name = record.get("id")
    if isinstance(name, (str, int)) and not isinstance(name, bool) and name != "":
        return repr(str(name))[:200]
    return repr(picture(record))[:200] if picture(record) else f"record {place}"


def check(root: Path, form: Format, file: Path, record: Any, place: int, good: dict[str, tuple]) -> None:
    bad = BadRecords("report")
    found = by_id(form.read(root, bad))
    assert {name: found.get(name) for name in good} == good
    others = [found[name] for name in found if name not in good]
    assert len(others) + len(bad.reasons) == 1
    for picture, depth, question in others:
        assert_valid(root, picture, depth, question)
    for reason in bad.reasons:
        assert str(file) in reason and named(record, place, form.picture) in reason
        assert not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in reason)
        assert len(reason) < 2000
        with pytest.raises(DataError) as caught:
            form.read(root, BadRecords("error"))
        assert str(caught.value) == reason
    if others:
        assert by_id(form.read(root, BadRecords("error"))) == found


REPRODUCIBLE = reproducible(100)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "smolrgpt"])
def test_json_records(root, name):
    form = FORMATS[name]
    records = [form.record("good"), form.record("fine")]
    write_json(root, records)
    good = by_id(form.read(root, BadRecords("error")))
    assert len(good) == 2

    @REPRODUCIBLE
    @given(broken(form.record("broken")), st.integers(0, 2))
    def one_broken_record(record, place):
        file = write_json(root, [*records[:place], record, *records[place:]])
        check(root, form, file, record, place, good)

    one_broken_record()


def test_parquet_records(root):
    form = FORMATS["smolrgpt"]
    write_parquet(root, [form.record("good"), form.record("fine")], "all-1.parquet")
    good = by_id(form.read(root, BadRecords("error")))
    assert len(good) == 2

    @REPRODUCIBLE
    @given(broken(form.record("broken")), st.sampled_from(["all-0.parquet", "all-2.parquet"]))
    def one_broken_record(record, name):
        assume(isinstance(record, dict) and record)
        try:
            file = write_parquet(root, [record], name)
        except (pa.ArrowException, AttributeError, OverflowError, TypeError, UnicodeError):
            assume(False)  # nothing that a parquet file can hold
        try:
            (stored,) = pq.read_table(file).to_pylist()
            missing = [key for key in ("id", "rgb_image", "depth_image", "rle", "texts") if key not in stored]
            if missing:
                with pytest.raises(DataError, match=f"{name}: has no column {', '.join(missing)}"):
                    form.read(root, BadRecords("report"))
            else:
                check(root, form, file, stored, 0, good)
        finally:
            file.unlink()

    one_broken_record()
