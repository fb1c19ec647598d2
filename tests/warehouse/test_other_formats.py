"""What is written in other data sets' formats, read back by the readers of those data sets."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as coco

from smolrgpt_jax.data.masks import decode
from smolrgpt_jax.data.sources.formats import read_bench, read_captions, read_osd, read_smolrgpt, read_warehouse
from smolrgpt_jax.warehouse.make_scene import draw_scene, make_spatial
from smolrgpt_jax.warehouse.parameters import WarehouseConfig


@pytest.fixture(scope="module")
def drawn(written):
    """Draws a scene again: its questions for the other formats, and its rendering."""

    def draw(split: str, index: int):
        scene, rendering, regions, rng = draw_scene(written, split, index)
        return make_spatial(written, split, scene, regions, rng), rendering

    return draw


def same_masks(regions, expected, ids) -> bool:
    return len(regions) == len(expected) and all(
        np.array_equal(decode(mask), ids == region.thing.number) for mask, region in zip(regions, expected)
    )


def numbered(prompt: str) -> str:
    """ "<mask>" of a prompt as the benchmark's plain text names it."""
    for i in range(prompt.count("<mask>")):
        prompt = prompt.replace("<mask>", f"Region [{i}]", 1)
    return prompt


def test_the_benchmark_is_read_back_as_asked(warehouse, drawn):
    pictures = read_bench(warehouse / "bench")
    records = {r["id"]: r for r in json.loads((warehouse / "bench/SpatialRGPT-Bench_v1.json").read_text())}
    assert len(pictures) == 4
    for index, picture in enumerate(pictures):
        expected, rendering = drawn("test", index)
        assert len(picture.questions) == len(expected) > 20
        for question, wanted in zip(picture.questions, expected):
            text, answer = wanted.texts(("Region [0]", "Region [1]"))
            assert (question.category, question.answer) == (wanted.category, answer)
            assert numbered(question.prompt) == text == records[question.id]["text_q"]
            assert same_masks(question.regions, wanted.regions, rendering.ids)
        np.testing.assert_array_equal(np.asarray(Image.open(picture.image)), rendering.rgb)
        depth, own = Image.open(picture.depth), warehouse / f"test/depths/{picture.id}_depth.png"
        assert depth.mode == "L" and depth.size == (160, 90)
        np.testing.assert_array_equal(np.asarray(depth), np.asarray(Image.open(own)))


def test_the_benchmarks_fields(warehouse):
    for record in json.loads((warehouse / "bench/SpatialRGPT-Bench_v1.json").read_text()):
        assert set(record) == {"id", "image_info", "text_q", "qa_info", "conversations", "bbox", "rle"}
        kind = record["qa_info"]["type"]
        assert record["id"].startswith(f"{kind}_") and kind in ("qualitative", "quantitative")
        quantitative = record["qa_info"]["category"].endswith(("_data", "direction"))
        assert quantitative == (kind == "quantitative")
        assert (record["image_info"]["height"], record["image_info"]["width"]) == (90, 160)
        for box, rle in zip(record["bbox"], record["rle"], strict=True):
            rows, columns = np.nonzero(coco.decode(rle))
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_the_benchmark_can_be_read_by_its_boxes(warehouse, tmp_path):
    records = json.loads((warehouse / "bench/SpatialRGPT-Bench_v1.json").read_text())
    for kind in ("images", "depths"):
        (tmp_path / kind).symlink_to(warehouse / "bench" / kind)
    (tmp_path / "boxes.json").write_text(json.dumps([record | {"rle": None} for record in records]))
    by_box = [q for p in read_bench(tmp_path, "boxes.json") for q in p.questions]
    by_mask = [q for p in read_bench(warehouse / "bench") for q in p.questions]
    for boxed, masked in zip(by_box, by_mask, strict=True):
        for outer, inner in zip(boxed.regions, masked.regions, strict=True):
            rows, columns = np.nonzero(decode(inner))
            assert decode(outer).sum() == np.ptp([*rows, rows.max() + 1]) * np.ptp([*columns, columns.max() + 1])
            assert (decode(outer) >= decode(inner)).all()


@pytest.mark.parametrize(
    ("split", "file", "scenes"), [("train", "result_10_depth_convs.json", 12), ("val", "val_convs.json", 3)]
)
def test_conversations_are_read_back_turn_by_turn(warehouse, drawn, split, file, scenes):
    pictures = read_osd(warehouse / "osd", file)
    assert len(pictures) == scenes
    for index, picture in enumerate(pictures):
        expected, rendering = drawn(split, index)
        (question,) = picture.questions
        texts, regions = [], []
        for wanted in expected:
            texts += wanted.texts(("<mask>", "<mask>"), first=len(regions))
            regions += wanted.regions
        assert question.turns == texts and len(texts) >= 8
        assert same_masks(question.regions, regions, rendering.ids)
        image, depth = np.asarray(Image.open(picture.image)), np.asarray(Image.open(picture.depth))
        assert picture.image.suffix == ".jpg"
        assert np.abs(image.astype(int) - rendering.rgb).mean() < 8  # JPEG loses colour at this size
        assert depth.shape == (90, 160, 3) and (depth == depth[..., :1]).all()
        own = next((warehouse / split / "depths").glob(f"{picture.id}_depth.png"))
        np.testing.assert_array_equal(depth[..., 0], np.asarray(Image.open(own)))


def as_text(pictures, fields=("id", "category", "turns")):
    return [
        (p.id, [tuple(getattr(q, field) for field in fields) + (q.regions,) for q in p.questions]) for p in pictures
    ]


def test_captions_in_their_own_folder_are_the_warehouses(warehouse):
    for split, file in (("train", "chat.json"), ("val", "val_chat.json")):
        own = read_captions(warehouse, f"{split}_captions.json", f"{split}/images")
        found = read_captions(warehouse / "llava", file)
        assert as_text(found) == as_text(own) and len(found) > 1
        assert [p.image.read_bytes() for p in found] == [p.image.read_bytes() for p in own]


@pytest.mark.parametrize("split", ["train", "val"])
def test_warehouse_parquet(warehouse, split):
    found = read_smolrgpt(warehouse / "parquet/warehouse-rgbd-smolRGPT", split)
    own = read_warehouse(warehouse, split)
    fields = ("id", "category", "turns", "normalized_answer")
    assert as_text(found, fields) == as_text(own, fields) and found
    for a, b in zip(found, own):
        assert a.image.read_bytes() == b.image.read_bytes() and a.depth.read_bytes() == b.depth.read_bytes()


def test_other_parquet_sets(warehouse):
    sets = warehouse / "parquet"
    for found, own in (
        (read_smolrgpt(sets / "osd-110k-smolRGPT", "train"), read_osd(warehouse / "osd")),
        (read_smolrgpt(sets / "osd-110k-smolRGPT", "val"), read_osd(warehouse / "osd", "val_convs.json")),
        (read_smolrgpt(sets / "llava-cc3m-smolRGPT", "train"), read_captions(warehouse / "llava")),
        (read_smolrgpt(sets / "spacial-rgpt-bench-smolRGPT"), read_bench(warehouse / "bench")),
    ):
        assert as_text(found) == as_text(own) and found
        assert [p.depth is None for p in found] == [p.depth is None for p in own]


def test_parquet_columns_and_user_text(warehouse):
    table = pq.read_table(warehouse / "parquet/osd-110k-smolRGPT/data/train-00000-of-00001.parquet")
    assert table.column_names == [
        "id_db",
        "id",
        "rgb_image",
        "depth_image",
        "rle",
        "texts",
        "category",
        "normalized_answer",
        "dataset_name",
    ]
    rows = table.to_pylist()
    assert [row["id_db"] for row in rows] == list(range(12))
    for row in rows:
        users = "".join(turn["user"] for turn in row["texts"])
        assert users.count("<mask_rgb><mask_depth>") == len(row["rle"]) and "<mask>" not in users
        assert "<depth>" not in users


def test_coco_has_every_visible_thing_and_depth_in_millimetres(warehouse, drawn):
    found = json.loads((warehouse / "coco/instances.json").read_text())
    kinds = {category["id"]: category["name"] for category in found["categories"]}
    assert len(found["images"]) == 12
    for index, image in enumerate(found["images"]):
        _, rendering = drawn("train", index)
        assert Image.open(warehouse / "coco/images" / image["file_name"]).size == (image["width"], image["height"])
        depth = np.asarray(Image.open(warehouse / "coco/depths" / image["file_name"]))
        assert depth.dtype == np.uint16 and abs(depth / 1000 - rendering.depth).max() < 0.00051
        own = [annotation for annotation in found["annotations"] if annotation["image_id"] == image["id"]]
        masks = [coco.decode(annotation["segmentation"]) for annotation in own]
        assert sorted(mask.sum() for mask in masks) == sorted(annotation["area"] for annotation in own)
        assert all(len(set(rendering.ids[mask > 0])) == 1 for mask in masks)
        assert {kinds[annotation["category_id"]] for annotation in own} >= {"pallet", "buffer"}


def test_metadata_counts_the_formats(warehouse):
    counts = json.loads((warehouse / "metadata.json").read_text())["formats"]
    assert sum(counts["bench"].values()) == sum(len(p.questions) for p in read_bench(warehouse / "bench"))
    turns = [len(p.questions[0].turns) // 2 for p in read_osd(warehouse / "osd")]
    assert counts["osd"]["train_turns"] == sum(turns)
    assert counts["parquet"]["osd-110k-smolRGPT"] == 15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formats": ("voc",)}, "format 'voc' is not one of bench, osd, llava, coco, parquet"),
        ({"formats": ("bench",), "test_scenes": 0}, "bench is made of the test split"),
        ({"formats": ("osd",), "scenes": 0}, "osd is made of the train split"),
    ],
)
def test_impossible_formats(written, change, message):
    with pytest.raises(ValueError, match=message):
        WarehouseConfig(**{**written.__dict__, **change})
