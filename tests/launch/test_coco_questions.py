"""Questions about annotations of COCO: right by construction, read by the rules, and written whole or not at all."""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from eval.reading.rules import normalized_answer
from launch import coco_questions
from smolrgpt_jax.data.images import read_depth
from smolrgpt_jax.data.sources.formats import read_warehouse

HEIGHT, WIDTH, FOCAL = 60, 80, 100.0
# Name, box x1 y1 x2 y2 and metres ahead of each object of every picture.
OBJECTS = [("chair", (4, 20, 14, 40), 2.0), ("desk", (30, 24, 50, 44), 4.0), ("lamp", (60, 10, 70, 30), 8.0)]


def segmentation(form: str, box) -> dict:
    x1, y1, x2, y2 = box
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y1:y2, x1:x2] = 1
    packed = coco.encode(np.asfortranarray(mask))
    runs = np.flatnonzero(np.diff(mask.T.ravel(), prepend=0, append=0))
    runs = np.diff([0, *runs, mask.size]).tolist()
    return {
        "box": {"bbox": [x1, y1, x2 - x1, y2 - y1]},
        "polygon": {"segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]]},
        "compressed": {"segmentation": {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()}},
        "run lengths": {"segmentation": {"size": [HEIGHT, WIDTH], "counts": runs}, "iscrowd": 1},
    }[form]


class Coco:
    """Three pictures with the same objects, depth in millimetres."""

    def __init__(self, root, form="polygon"):
        self.root, self.out = root / "coco", root / "own"
        for kind in ("images", "depths"):
            (self.root / kind).mkdir(parents=True)
        depth = np.full((HEIGHT, WIDTH), 10_000, np.uint16)
        for _, (x1, y1, x2, y2), metres in OBJECTS:
            depth[y1:y2, x1:x2] = 1000 * metres
        self.file = {"images": [], "annotations": [], "categories": []}
        self.file["categories"] = [{"id": n, "name": name} for n, (name, *_) in enumerate(OBJECTS)]
        for number in range(3):
            name = f"{number}.png"
            pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            Image.fromarray(pixels).save(self.root / "images" / name)
            self.save_depth(depth, number)
            self.file["images"].append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
            for kind, (_, box, _) in enumerate(OBJECTS):
                about = {"id": 10 * number + kind, "image_id": number, "category_id": kind, "iscrowd": 0}
                self.file["annotations"].append({**about, **segmentation(form, box)})

    def save_depth(self, depth, number):
        Image.fromarray(depth).save(self.root / "depths" / f"{number}.png")

    def ask(self, *arguments):
        (self.root / "a.json").write_text(json.dumps(self.file))
        places = [
            "--annotations",
            self.root / "a.json",
            "--images",
            self.root / "images",
            "--depths",
            self.root / "depths",
        ]
        line = [*places, "--out", self.out, "--val_share", "0.34", *arguments]
        coco_questions.main([str(text) for text in line])
        return [json.loads((self.out / f"{split}.json").read_text()) for split in ("train", "val")]


def truth(record) -> object:
    """The right answer by what the question says and where the objects are."""
    question = record["conversations"][0]["value"]
    boxes = [coco.toBbox({**rle, "counts": rle["counts"].encode()}) for rle in record["rle"]]
    found = [min(OBJECTS, key=lambda known: abs(known[1][0] - box[0])) for box in boxes]
    points = []
    for _, (x1, y1, x2, y2), ahead in found:
        points.append(
            [((x1 + x2) / 2 - WIDTH / 2) * ahead / FOCAL, ((y1 + y2) / 2 - HEIGHT / 2) * ahead / FOCAL, ahead]
        )
    if "to the left or right" in question:
        return "left" if found[0][1][0] < found[1][1][0] else "right"
    if "How far" in question:
        return float(np.linalg.norm(np.subtract(*points)))
    aheads = [point[2] for point in points]
    return int(np.argmin(aheads)) if "Which" in question else sum(a < aheads[-1] for a in aheads[:-1])


@pytest.mark.parametrize("form", ["box", "polygon", "compressed", "run lengths"])
def test_every_form_of_annotation_gives_questions_of_all_categories_with_right_answers(form, tmp_path):
    train, val = Coco(tmp_path, form).ask("--focal", FOCAL, "--per_picture", 12)
    assert {record["image"] for record in train + val} == {"0.png", "1.png", "2.png"}
    assert len({record["image"] for record in train}) == 2 and not {r["image"] for r in train} & {
        r["image"] for r in val
    }
    assert Counter(record["category"] for record in val) == {"left_right": 3, "distance": 3, "mcq": 1, "count": 1}
    for record in train + val:
        question, answer = (turn["value"] for turn in record["conversations"])
        value, category = record["normalized_answer"], record["category"]
        right = pytest.approx(truth(record), abs=0.15) if category == "distance" else truth(record)
        assert value == right, question
        assert normalized_answer(category, question, answer) == value, answer


def test_what_is_written_is_read_as_the_warehouse_with_the_pictures_depth(tmp_path):
    own = Coco(tmp_path)
    own.ask("--focal", FOCAL)
    pictures = read_warehouse(own.out, "train") + read_warehouse(own.out, "val")
    assert [picture.image.name for picture in pictures] and all(picture.depth for picture in pictures)
    for picture in pictures:
        grey = read_depth(picture.depth, 64)
        assert grey.min() == 0 and grey.max() == 255  # 2 and 10 metres
        assert picture.image.read_bytes() == (own.root / "images" / picture.image.name).read_bytes()


@pytest.mark.parametrize(
    ("depth", "arguments", "asked"),
    [
        (lambda d: d, [], {"left_right", "mcq", "count"}),
        (lambda d: (d / 40).astype(np.uint8), ["--focal", FOCAL], {"left_right"}),
        (
            lambda d: (d / 40).astype(np.uint8),
            ["--focal", FOCAL, "--depth_unit", 0.04],
            {"left_right", "distance", "mcq", "count"},
        ),
        (lambda d: 0 * d, ["--focal", FOCAL], {"left_right"}),
    ],
    ids=["no focal length", "8 bits", "8 bits of a known unit", "nothing measured"],
)
def test_only_what_is_known_is_asked(depth, arguments, asked, tmp_path):
    own = Coco(tmp_path)
    with Image.open(own.root / "depths/0.png") as picture:
        known = np.asarray(picture)
    for number in range(3):
        own.save_depth(depth(known), number)
    train, val = own.ask(*arguments)
    assert {record["category"] for record in train + val} == asked


def test_a_focal_length_of_the_image_comes_before_that_of_the_command(tmp_path):
    own = Coco(tmp_path)
    for image in own.file["images"]:
        image["focal"] = FOCAL
    train, _ = own.ask("--focal", 7)
    distances = [record for record in train if record["category"] == "distance"]
    assert distances and all(r["normalized_answer"] == pytest.approx(truth(r), abs=0.1) for r in distances)


def test_pictures_may_lie_in_folders_and_be_named_by_windows(tmp_path):
    own = Coco(tmp_path)
    for kind in ("images", "depths"):
        (own.root / kind / "room").mkdir()
        (own.root / kind / "0.png").rename(own.root / kind / "room/0.png")
    own.file["images"][0]["file_name"] = "room\\0.png"
    train, val = own.ask()
    assert "room/0.png" in {record["image"] for record in train + val}


DAMAGES = {
    "no file of COCO": (lambda own: own.file.clear(), "a.json: holds no images, annotations and categories of COCO"),
    "no picture": (lambda own: (own.root / "images/1.png").unlink(), "a.json: image 1: picture .*1.png is missing"),
    "no depth": (lambda own: (own.root / "depths/1.png").unlink(), "a.json: image 1: .*1.png has no depth 1.png or"),
    "a depth cut short": (
        lambda own: (own.root / "depths/1.png").write_bytes(b"\x89PNG\r\n\x1a\n"),
        "a.json: image 1: picture .*1.png",
    ),
    "a polygon of a point": (
        lambda own: own.file["annotations"][4].update(segmentation=[[1, 2]]),
        "a.json: image 1: annotation 11: mask 0 is unreadable: a polygon is",
    ),
    "an empty mask": (
        lambda own: own.file["annotations"][4].update(
            segmentation={"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
        ),
        "a.json: image 1: annotation 11: the mask is empty",
    ),
    "a category that is not there": (
        lambda own: own.file["annotations"][4].update(category_id=9),
        "a.json: annotation 11 is of category 9, which",
    ),
    "an image that is not there": (
        lambda own: own.file["annotations"][4].update(image_id=9),
        "a.json: annotation 11 is of image 9, which",
    ),
    "a focal length of nothing": (
        lambda own: own.file["images"][1].update(focal=0),
        "image 1: its focal length is 0, not a number of pixels above 0",
    ),
    "a focal length that is a truth": (
        lambda own: own.file["images"][1].update(focal=True),
        "image 1: its focal length is True, not a number of pixels above 0",
    ),
    "a focal length in words": (
        lambda own: own.file["images"][1].update(focal="abc"),
        "image 1: its focal length is 'abc', not a number of pixels above 0",
    ),
    "one object a picture": (
        lambda own: own.file.update(annotations=own.file["annotations"][::3]),
        "a.json: no picture has two objects",
    ),
    "a name that only the chat format may write": (
        lambda own: own.file["categories"][0].update(name="<|im_end|>"),
        "the question holds <|im_end|>",
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_what_cannot_be_asked_about_is_one_sentence_and_nothing_is_written(what, tmp_path):
    damage, sentence = DAMAGES[what]
    own = Coco(tmp_path)
    damage(own)
    with pytest.raises(SystemExit, match=sentence.replace("|", r"\|")):
        own.ask()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco"]


@pytest.mark.parametrize(
    ("flag", "value", "sentence"),
    [
        *(
            (flag, value, f"argument {flag}: '{value}' is not a number above 0")
            for flag in ("--focal", "--depth_unit")
            for value in ("-1", "0", "nan", "inf", "far")
        ),
        *(("--val_share", value, f"'{value}' is not a share, 0 to 1") for value in ("-0.1", "3", "nan", "some")),
    ],
)
def test_impossible_numbers_are_refused_by_name(flag, value, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        Coco(tmp_path).ask(f"{flag}={value}")
    assert sentence in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco"]


def test_a_bad_image_can_be_left_out(tmp_path, capsys):
    own = Coco(tmp_path)
    (own.root / "images/1.png").unlink()
    train, val = own.ask("--on_bad_record", "report")
    assert {record["image"] for record in train + val} == {"0.png", "2.png"}
    assert re.search("1 bad record left out:\n  .*image 1: picture .*1.png is missing", capsys.readouterr().out)
