"""Every reader of pictures, depth, masks and boxes takes the same, or refuses it with the same sentence."""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import eval.predict
import smolrgpt_jax
from eval.answering.one_picture import answer
from eval.answering.served import data_url
from eval.page.picture_panel import read_upload
from eval.serving.request_body import Refused, read_request
from smolrgpt_jax.data import images
from smolrgpt_jax.data.images import load_depth, load_rgb
from smolrgpt_jax.data.masks import decode, resample
from smolrgpt_jax.data.prepared.reader import read_prepared
from smolrgpt_jax.data.prepared.writer import PrepareConfig, prepare
from smolrgpt_jax.data.rows import FileLoader, RowShape, empty_batch
from smolrgpt_jax.data.sources.formats import read_bench, read_osd, read_smolrgpt, read_warehouse
from smolrgpt_jax.export import onnx_runner, runner
from tests.odd_inputs import DEPTH, RGB, TABLES, Given

SIZE, GRID = 16, 8
QUESTION = "How tall is the pallet <mask>?"


class Asked:
    """A model, loaded or exported, that keeps what it is asked."""

    config = SimpleNamespace(
        vision=SimpleNamespace(image_size=SIZE),
        mask_grid=GRID,
        image_tokens=4,
        decoder=SimpleNamespace(max_positions=99),
    )
    sizes = SimpleNamespace(image_size=SIZE, mask_grid=GRID)
    tokenizer = SimpleNamespace(
        pad_id=0,
        prefix=lambda n: np.zeros(n, int),
        question=lambda _: [np.zeros(3, int)],
        decode=lambda _: "",
        format=SimpleNamespace(trained_on=None),
    )
    manifest = {"token_ids": {"eos": 2}}
    eos_id = answer_tokens = 2

    def prompt(self, question):
        return np.zeros(3, int)

    def text(self, ids):
        return ""

    def generate(self, input_ids, attention_mask, images, depths=None, masks=None, max_new_tokens=None):
        self.given = (images[0], depths[0], masks[0][..., :1].transpose(2, 0, 1))
        return np.array([[self.eos_id]])


@pytest.fixture
def model(monkeypatch):
    found = Asked()
    monkeypatch.setattr(images, "_doubted", set())  # pictures in memory have no folder to tell them apart
    monkeypatch.setitem(smolrgpt_jax.__dict__, "load", lambda *_, **__: found)
    for module in (runner, onnx_runner):
        monkeypatch.setattr(module, "ExportedModel", lambda _: found)
    return found


def python(given: Given, model):
    boxes = given.boxes
    masks = given.pictures or (None if boxes else given.masks)
    answer(model, given.image, QUESTION, depth=given.depth, masks=masks, boxes=boxes)
    return model.given


def line_of(given: Given) -> list[str]:
    regions = (
        ["--masks", *map(str, given.pictures)] if given.pictures else ["--masks", given.json("m.json", given.masks)]
    )
    if given.boxes:
        regions = ["--boxes", *(",".join(map(str, box)) for box in given.boxes)]
    return [*map(str, ["--image", given.image, "--depth", given.depth, *regions]), "--question", QUESTION]


def told(main, line):
    try:
        main(line)
    except SystemExit as stop:
        raise ValueError(str(stop).removeprefix("error: ")) from stop


def predict(given: Given, model):
    told(eval.predict.main, ["--checkpoint", "any", *line_of(given)])
    return model.given


def exported(given: Given, model):
    told(runner.main, line_of(given))
    return model.given


def exported_onnx(given: Given, model):
    told(onnx_runner.main, line_of(given))
    return model.given


def page(given: Given, model):
    def upload(file, kind, marked):
        return read_upload(io.BytesIO(file.read_bytes()), str(file), kind, marked)

    marked = upload(given.image, "picture", None)
    return load_rgb(marked.image, SIZE), load_depth(upload(given.depth, "depth", marked), SIZE), None


def server(given: Given, model):
    parts = [{"type": "image_url", "image_url": {"url": data_url(file)}} for file in (given.image, given.depth)]
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": QUESTION}]}]
    regions = [data_url(file) for file in given.pictures] or given.boxes or given.masks
    body = json.dumps({"model": "any", "messages": messages, "regions": regions}).encode(given.encoding)
    try:
        asked = read_request(body, most_regions=8)
    except Refused as refused:
        raise ValueError(refused.message) from refused
    masks = [resample(decode(region), GRID) for region in asked.question.regions]
    return load_rgb(asked.image, SIZE), load_depth(asked.depth, SIZE, beside=asked.image), np.stack(masks)


def filled(pictures):
    shape = RowShape(tokens=9, pictures=1, regions=1, image_tokens=4, image_size=SIZE, mask_grid=GRID)
    out = {key: value[0] for key, value in empty_batch(1, shape, 0).items()}
    FileLoader(shape).fill(out, 0, pictures[0], pictures[0].questions[0].regions)
    return out["images"][0], out["depths"][0], out["region_masks"][0]


def placed(given: Given, image: str, depth: str) -> None:
    for source, name in ((given.image, image), (given.depth, depth)):
        (given.folder / name).parent.mkdir(parents=True, exist_ok=True)
        if source.exists():
            shutil.copyfile(source, given.folder / name)


def chat(question=QUESTION):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": "2 m"}]


def read_given_warehouse(given: Given):
    placed(given, "val/images/a.png", "val/depths/a_depth.png")
    record = {"id": "q", "image": "a.png", "category": "distance", "normalized_answer": 2, "conversations": chat()}
    given.json("val.json", [record | {"rle": given.masks}])
    return read_warehouse(given.folder, "val")


def warehouse(given: Given, model):
    return filled(read_given_warehouse(given))


def prepared(given: Given, model):
    config = PrepareConfig(SIZE, GRID)
    prepare({"val": read_given_warehouse(given)}, given.folder / "prepared", config, workers=1)
    return filled(read_prepared(given.folder / "prepared", "val"))


def osd(given: Given, model):
    placed(given, "images/a.jpg", "depths/a.png")
    masks = {"rle": None, "bbox": given.boxes} if given.boxes else {"rle": given.masks, "bbox": []}
    given.json("osd.json", [{"filename": "a", "conversations": chat("Is <mask> <depth> tall?"), **masks}])
    return filled(read_osd(given.folder, "osd.json"))


def bench(given: Given, model):
    placed(given, "images/a.jpg", "depths/a.png")
    info = {"image_info": {"file_path": "a.jpg"}, "qa_info": {"category": "direction"}, "conversations": chat()}
    given.json(
        "bench.json", [{"id": "q", **info, "rle": given.masks if not given.boxes else None, "bbox": given.boxes}]
    )
    return filled(read_bench(given.folder, "bench.json"))


def smolrgpt(given: Given, model):
    placed(given, "images/a.png", "depths/a.png")
    row = {"id": "q", "rgb_image": "a.png", "depth_image": "a.png", "rle": given.masks, "category": "distance"}
    (given.folder / "data").mkdir()
    row |= {"texts": {"user": QUESTION, "assistant": "2 m"}, "normalized_answer": "2"}
    pq.write_table(pa.Table.from_pylist([row]), given.folder / "data/val.parquet")
    return filled(read_smolrgpt(given.folder))


PEOPLE = (python, predict, exported, exported_onnx, server)
READERS = {
    "Pictures and depth": (*PEOPLE, page, warehouse, osd, bench, smolrgpt, prepared),
    "Masks in records and JSON files": (*PEOPLE, warehouse, osd, bench),
    "Annotation files of COCO for `--masks`": (predict, exported, exported_onnx),
    "Mask pictures": PEOPLE,
    "Boxes": (*PEOPLE, osd, bench),
}
CASES = [
    pytest.param(read, title, what, id=f"{read.__name__}-{what}")
    for title, changes in TABLES.items()
    for what in changes
    for read in READERS[title]
    if (read, what) != (server, "a file that is not there")  # and could not be sent
]


def documented() -> dict[str, dict[str, str]]:
    """The tables "what | outcome" of docs/inputs.md by the titles above them: what comes of each input."""
    tables, title, heading = {}, "", ""
    for line in (Path(__file__).parents[1] / "docs/inputs.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            title = line.removeprefix("## ")
        if not line.startswith("|"):
            heading = ""
        elif not heading:
            heading = line
        elif heading == "| what | outcome |" and not line.startswith("|---"):
            what, outcome = line.strip("| ").split(" | ")
            tables.setdefault(title, {})[what] = outcome
    return tables


OUTCOMES = documented()


def test_the_documented_inputs_are_those_that_are_tried():
    assert {title: list(rows) for title, rows in OUTCOMES.items()} == {t: list(rows) for t, rows in TABLES.items()}


@pytest.mark.parametrize(("read", "title", "what"), CASES)
def test_all_readers_take_the_same_or_refuse_it_with_the_documented_sentence(
    read, title, what, model, tmp_path, caplog
):
    given, outcome = Given(tmp_path), OUTCOMES[title][what]
    TABLES[title][what](given)
    if re.fullmatch("`.*`", outcome):
        if read is page and not given.image.exists():
            pytest.skip("what is not there cannot be uploaded")
        pattern = re.escape(outcome.strip("`")).replace("FILE", r"\S+").replace("WHY", ".+")
        with pytest.raises(ValueError, match=f"{pattern}$"):
            read(given, model)
        return
    with caplog.at_level(logging.WARNING):
        image, depth, masks = read(given, model)
    np.testing.assert_array_equal(image, load_rgb(RGB, SIZE))
    np.testing.assert_array_equal(depth, load_depth(DEPTH, SIZE))
    if masks is not None:
        np.testing.assert_array_equal(masks[0], resample(given.region, GRID))
    warned = [f"with a warning: `{record.getMessage().split(': ', 1)[1]}`" for record in caplog.records]
    assert warned == re.findall("with a warning: `.*`", outcome)
