"""Folders with one fault each: the command names it, by file and record, and ends with status 1; nothing is written into them."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from smolrgpt_jax.data import masks
from tests.mutations import POINTER, files_of
from tests.odd_inputs import bomb
from tests.own_folder import HEIGHT, WIDTH, Own, distance, floor, rle, side


def record(number: int = 0, **changes) -> Callable[[Own], None]:
    return lambda own: own.change(number, **changes)


def turns(question: str, answer: str | None = "It is 1.5 meters.") -> list[dict]:
    said = [{"from": "human", "value": question}]
    return said if answer is None else [*said, {"from": "gpt", "value": answer}]


def cut(name: str, kept: int = 300) -> Callable[[Own], None]:
    def change(own: Own) -> None:
        file = own.root / name
        file.write_bytes(file.read_bytes()[:kept])

    return change


def removed(name: str) -> Callable[[Own], None]:
    return lambda own: (own.root / name).unlink()


def every_depth(make: Callable[[np.ndarray], np.ndarray]) -> Callable[[Own], None]:
    def change(own: Own) -> None:
        for number, name in enumerate(own.depths()):
            own.save(make(floor(number)), name)

    return change


def every_mask(change: Callable[[list], list]) -> Callable[[Own], None]:
    return lambda own: own.write([record | {"rle": change(record["rle"])} for record in own.records()])


def one_picture(own: Own) -> None:
    content = (own.root / "train/images/train0.png").read_bytes()
    for file in (own.root / "train/images").iterdir():
        file.write_bytes(content)


def one_depth(pixels: np.ndarray) -> Callable[[Own], None]:
    return lambda own: own.save(pixels, "train/depths/train0_depth.png")


def added(*more: dict) -> Callable[[Own], None]:
    return lambda own: own.write([*own.records(), *more])


def masked(*regions: dict) -> Callable[[Own], None]:
    return record(rle=list(regions))


def in_two_splits(own: Own) -> None:
    for kind, end in (("images", ".png"), ("depths", "_depth.png")):
        source = own.root / f"train/{kind}/train0{end}"
        (own.root / f"val/{kind}/val0{end}").write_bytes(source.read_bytes())


def always_left(own: Own) -> None:
    records = [side(f"train{number % 6}", "left", id=f"s{number}") for number in range(24)]
    for number, one in enumerate(records):  # different places, so that none is asked twice
        one["rle"] = [rle(8, 30, 30 + number // 6, 60), rle(50, 20, 80, 50)]
    own.write([r for r in own.records() if r["category"] != "left_right"] + records)


def in_millimetres(own: Own) -> None:
    own.write([distance(f"train{n}", 1500 + n) for n in range(6)])


def twin(name: str) -> dict:
    return {"size": [HEIGHT, WIDTH], "counts": name}


EMPTY = {
    "size": [HEIGHT, WIDTH],
    "counts": masks.RLE.of_runs(HEIGHT, WIDTH, np.array([HEIGHT * WIDTH])).counts.decode(),
}
# The outermost pixels lie beyond the first points of the grid.
DOT = rle(0, 0, 1, 1)
WORDS = " ".join(["very"] * 1200)
FLOOR = floor(0)
NOISE = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
# What is done to the folder; the kind of problem; what its sentence says, the file and the record among it.
DAMAGES = {
    "a list of records cut short": (cut("train.json"), "file", "train.json: is not valid JSON"),
    "no list": (lambda own: own.write({"a": 1}), "file", "train.json: holds a JSON object, expected a list of records"),
    "annotations of COCO in place of records": (
        lambda own: own.write({"images": [], "annotations": []}),
        "file",
        "train.json: holds annotations of COCO (docs/own_data.md makes records of them)",
    ),
    "a picture that is not there": (
        removed("train/images/train0.png"),
        "record",
        "train.json: record 'train0-d' (number 0): picture",
    ),
    "depth that is not there": (removed("train/depths/train0_depth.png"), "record", "train0_depth.png is missing"),
    "a record without id": (record(id=None), "record", "train.json: record 0 of picture 'train0.png': has no id"),
    "an id twice": (record(1, id="train0-d"), "record", "record 'train0-d' (number 1): the id occurs twice"),
    "a mask of another picture": (
        masked(rle(1, 1, 9, 9) | {"size": [48, 64]}, rle(1, 1, 9, 9)),
        "record",
        "'train0-d' (number 0): mask 0 is unreadable: the runs do not fill a mask of 48x64 pixels",
    ),
    "counts that are none": (masked(twin("\x7f"), rle(1, 1, 9, 9)), "record", "(number 0): mask 0 is unreadable"),
    "a mask too few": (masked(rle(1, 1, 9, 9)), "record", "(number 0): the question holds 2 <mask> but 1 mask"),
    "a category of one's own": (record(category="far"), "record", "(number 0): unknown category 'far'"),
    "no answer": (
        record(conversations=turns("How far is <mask> from <mask>?", None)),
        "record",
        "(number 0): the answer is missing",
    ),
    "a value that is no number": (record(normalized_answer="far"), "record", "(number 0): normalized answer 'far'"),
    "a picture cut short": (
        cut("train/images/train0.png", 2000),
        "picture",
        "train.json: record 'train0-d' and 1 more of its picture: picture",
    ),
    "a pointer in place of a picture": (
        lambda own: (own.root / "train/images/train0.png").write_bytes(POINTER),
        "record",
        "`git lfs pull` fetches it",
    ),
    "a decompression bomb": (lambda own: bomb(own.root / "train/images/train0.png"), "record", "80,000,000 pixels"),
    "depth cut short": (cut("train/depths/train0_depth.png", 100), "depth", "train0_depth.png is truncated or corrupt"),
    "depth in colours": (one_depth(NOISE), "depth", "train0_depth.png is coloured, expected grey"),
    "depth without any measurement": (
        one_depth(np.zeros((HEIGHT, WIDTH), np.uint16)),
        "depth",
        "train0_depth.png holds no measurement",
    ),
    "depth that is the same everywhere": (
        one_depth(np.full((HEIGHT, WIDTH), 128, np.uint8)),
        "constant",
        "train.json: record 'train0-d' and 1 more of its picture: depth picture",
    ),
    "metres written as bytes": (
        every_depth(lambda ramp: (1 + ramp / 20).astype(np.uint8)),
        "constant",
        "only 13 of 256 levels of grey",
    ),
    "inverted depth": (
        every_depth(lambda ramp: 255 - ramp.astype(np.uint8)),
        "inverted",
        "train.json, depth in 8-bit grey: the lower third is brighter than the upper one in 6 of 6 pictures",
    ),
    "depth of another shape": (
        one_depth(np.linspace(255, 0, HEIGHT)[:, None].repeat(HEIGHT, 1).astype(np.uint8)),
        "view",
        "train0_depth.png: the depth is 180x180 pixels, its picture 240x180",
    ),
    "a mask without a pixel": (masked(EMPTY, rle(1, 1, 9, 9)), "empty", "train.json: record 'train0-d': mask 0 has"),
    "a mask too small for the grid": (
        masked(DOT, rle(1, 1, 9, 9)),
        "vanished",
        "train.json: record 'train0-d': mask 0 of 1 pixels holds no point of the 64x64 grid",
    ),
    "a mask of everything": (
        masked(rle(0, 0, WIDTH, HEIGHT), rle(1, 1, 9, 9)),
        "whole",
        "train.json: record 'train0-d': mask 0 covers 100.0% of the picture",
    ),
    "one region twice": (
        masked(rle(8, 30, 30, 60), rle(8, 30, 30, 60)),
        "same_mask",
        "train.json: record 'train0-d': masks 0 and 1 are the same region",
    ),
    "a question longer than a row": (
        record(conversations=turns(f"How far is the {WORDS} heavy box <mask> from the box <mask>?")),
        "row",
        "question 'train0-d' takes",
    ),
    "more regions than a row takes": (
        added(
            distance(
                "train0",
                1.5,
                id="many",
                conversations=turns("How far are " + " ".join(["<mask>"] * 20) + "?"),
                rle=[rle(4 * n, 30, 4 * n + 4, 60) for n in range(20)],
            )
        ),
        "row",
        "question 'many' has 20 regions, more than the 18 of a row's picture",
    ),
    "masks in another order than the question": (
        every_mask(lambda regions: regions[::-1]),
        "sides",
        "train.json: record 'train0-s': the answer is left, and mask 0 has its middle at 27% of the picture's width, mask 1 at 8%",
    ),
    "one depth under every picture": (
        every_depth(lambda ramp: FLOOR.astype(np.uint8)),
        "same_depth",
        "train.json: the depth of picture {root}/train/images/train1.png is that of {root}/train/images/train0.png",
    ),
    "one picture under every name": (one_picture, "same_picture", "train1.png is {root}/train/images/train0.png"),
    "a picture in two splits": (in_two_splits, "leak", "val.json: picture"),
    "two answers to one question": (
        added(distance("train0", 7.5, id="again")),
        "contradiction",
        "train.json: record 'again' and 'train0-d' ask the same, with the answers 7.5 and 1.5",
    ),
    "a text that says something else": (
        record(normalized_answer=6.5),
        "disagrees",
        "train.json: record 'train0-d': the text says 1.5, normalized_answer is 6.5",
    ),
    "distances in millimetres": (in_millimetres, "unit", "train.json: half of 6 distances are above 1502.5 metres"),
    "one answer to everything": (always_left, "one_answer", "left_right of train: 'left' is right for 100 % of 24"),
    "a picture of one colour": (
        lambda own: own.save(np.full((HEIGHT, WIDTH, 3), 7, np.uint8), "train/images/train0.png"),
        "blank",
        "is (7, 7, 7) everywhere",
    ),
    "no record that can be used": (
        lambda own: own.write([r | {"image": "none.png"} for r in own.records()]),
        "nothing",
        "train.json holds no question that can be used",
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_fault_is_told_by_file_and_record(what, own, look):
    change, kind, sentence = DAMAGES[what]
    change(own)
    before = files_of(own.root)
    verdict = look(own.root)
    assert verdict.status == 1
    assert any(sentence.format(root=own.root) in said for said in verdict.wrong[kind]), verdict.wrong
    assert verdict.wrong.keys() <= {kind, *CONSEQUENCES.get(what, ())}
    assert "WRONG: " in verdict.printed and f"page: {verdict.page}" in verdict.printed
    assert files_of(own.root) == before


# What follows from a fault besides.
CONSEQUENCES = {
    "no record that can be used": ["record"],
    "a picture in two splits": ["leaked_question"],
    "one picture under every name": ["contradiction"],
}


def test_the_folder_without_a_fault_passes(own, look):
    verdict = look(own.root)
    assert verdict.status == 0 and not verdict.wrong and not verdict.told
    assert "train.json (warehouse): 6 pictures, 12 questions (distance 6, left_right 6)" in verdict.printed
    assert "looked at 9 of 9 pictures and all 18 questions" in verdict.printed
    assert "nothing wrong" in verdict.printed


@pytest.mark.parametrize("off", [0, 1, -1])
def test_depth_numbered_from_elsewhere_is_told(own, look, off):
    pictures = 24
    for number in range(pictures):
        grey = 255 - floor(7 * number % pictures).astype(np.uint8)
        noise = np.random.default_rng(number).integers(0, 30, (HEIGHT, WIDTH, 1), np.uint8)
        own.save(np.repeat(grey[..., None] // 2 + noise, 3, axis=2), f"train/images/p{number:02d}.png")
        own.save(floor(7 * (number + off) % pictures).astype(np.uint8), f"train/depths/p{number:02d}_depth.png")
    own.write([distance(f"p{number:02d}", 1.5 + number) for number in range(pictures)])
    (own.root / "val.json").unlink()
    verdict = look(own.root)
    assert (verdict.status, set(verdict.wrong)) == ((1, {"other_depth"}) if off else (0, set()))
    if off:
        (said,) = verdict.wrong["other_depth"]
        assert said.startswith("train.json, depth in 8-bit grey: ") and "of 23 pictures have the edges" in said


def test_pictures_in_two_splits_count_against_the_one_that_is_scored(own, look):
    in_two_splits(own)
    assert look(own.root).page.read_text().count("1 of 3</span>") == 1  # of val's three pictures, not of all nine


def test_every_sentence_is_listed_and_the_first_is_printed(own, look):
    own.write([record | {"image": "none.png"} for record in own.records()])
    verdict = look(own.root)
    assert len(verdict.wrong["record"]) == 12
    assert "(and 11 more)" in verdict.printed and json.dumps("train0-d")[1:-1] in verdict.printed


def test_what_is_accepted_or_concerns_few_leaves_the_status_alone(own, look):
    DAMAGES["a text that says something else"][0](own)
    assert look(own.root, "--accept", "disagrees").status == 0
    records = own.records()
    many = [
        distance(
            f"train{n % 6}",
            1.5 + n % 6,
            id=f"more{n}",
            rle=[rle(n % 80, 1, n % 80 + 9, 9 + n // 80), rle(50, 20, 80, 50)],
        )
        for n in range(120)
    ]
    own.write(records + many)
    verdict = look(own.root)
    assert verdict.status == 0 and "disagrees" in verdict.told
