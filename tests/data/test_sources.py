from __future__ import annotations

import json
from pathlib import Path

import pytest

from smolrgpt_jax.data import images, masks
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.sources.formats import read_captions, read_warehouse
from smolrgpt_jax.errors import DataError

REAL = Path(__file__).parents[1] / "data_files" / "real_warehouse"


def test_reads_the_real_record():
    (picture,) = read_warehouse(REAL, "val")
    (question,) = picture.questions
    assert picture.id == "000315"
    assert picture.image == REAL / "val/images/000315.png"
    assert picture.depth == REAL / "val/depths/000315_depth.png"
    assert question.id == "aff5479b81c95b0194f58dbaaa041332"
    assert question.category == "left_right" and question.normalized_answer == "left"
    assert question.prompt.startswith("From this viewpoint") and question.prompt.count("<mask>") == 2
    assert question.answer == "The pallet [Region 0] is to the left of the pallet [Region 1]."
    assert [(r.height, r.width) for r in question.regions] == [(1080, 1920)] * 2
    assert images.load_rgb(picture.image, 256).shape == (256, 256, 3)
    assert images.load_depth(picture.depth, 256).shape == (256, 256, 3)


def test_groups_questions_by_picture_in_file_order(folder):
    for name in ("000001", "000002"):
        folder.add_picture(name)
    folder.write(
        [
            folder.record("a", "000002.png"),
            folder.record("b", "000001.png"),
            folder.record("c", "000002.png", regions=(1, 2)),
        ]
    )
    pictures = read_warehouse(folder.root, "train")
    assert [(p.id, [q.id for q in p.questions]) for p in pictures] == [("000002", ["a", "c"]), ("000001", ["b"])]
    first, second = pictures[0].questions
    assert first.prompt == "How far apart are <mask> and <mask>?"
    assert first.regions[1] is second.regions[0]  # equal masks of a picture are kept once


def test_reads_test_records_and_other_annotation_files(folder):
    folder.add_picture("000001", "test")
    record = folder.record("a", "000001.png")
    public = {key: record[key] for key in ("id", "image", "rle")}
    folder.write([public | {"conversations": record["conversations"][:1]}], "test.json")
    folder.write([record], "test_answers.json")
    question = read_warehouse(folder.root, "test")[0].questions[0]
    assert (question.category, question.answer, question.normalized_answer) == ("", None, None)
    full = read_warehouse(folder.root, "test", "test_answers.json")[0].questions[0]
    assert (full.category, full.answer, full.normalized_answer) == ("distance", "It is 2.5 meters.", 2.5)
    assert full.regions == question.regions


def test_other_categories_have_to_be_named(folder):
    folder.add_picture("000001")
    folder.write(
        [folder.record("a", "000001.png", category="region_caption", normalized_answer=None)], "train_regions.json"
    )
    pictures = read_warehouse(folder.root, "train", "train_regions.json", ("region_caption",))
    assert pictures[0].questions[0].category == "region_caption"
    with pytest.raises(DataError, match="category"):
        read_warehouse(folder.root, "train", "train_regions.json")


def _bad(folder, **changes):
    return folder.record("bad-id", "000001.png") | changes


def _unreadable(folder):
    record = _bad(folder)
    record["rle"][1]["counts"] = "~~~~"
    return record


def _sized(folder, size):
    record = _bad(folder)
    record["rle"][0]["size"] = size
    return record


def _answered(folder, answer):
    record = _bad(folder)
    record["conversations"][1]["value"] = answer
    return record


def _other_size(folder):
    record = _bad(folder)
    record["rle"][0]["size"] = record["rle"][0]["size"][::-1]
    return record


BAD = {
    "missing picture": (lambda f: _bad(f, image="000009.png"), "000009.png is missing"),
    "not a picture": (lambda f: _bad(f, image="000008.png"), "000008.png is an empty file"),
    "more marks than masks": (lambda f: _bad(f, rle=[]), "2 <mask> but 0 masks"),
    "null masks": (lambda f: _bad(f, rle=None), "2 <mask> but 0 masks"),
    "unreadable mask": (_unreadable, "mask 1 is unreadable"),
    "mask without counts": (lambda f: _bad(f, rle=[{"size": [2, 2]}] * 2), "mask 0 is unreadable"),
    "masks of another size": (
        _other_size,
        r"mask 0 is 36x64 pixels \(width x height\) but the upright picture is 64x36",
    ),
    "unknown category": (lambda f: _bad(f, category="colour"), "category 'colour'"),
    "answer of another type": (lambda f: _bad(f, normalized_answer="far"), "normalized answer 'far'"),
    "parent folder": (lambda f: _bad(f, image="../../000001.png"), "inside the data folder"),
    "absolute path": (lambda f: _bad(f, image="/etc/passwd"), "inside the data folder"),
    "no answer": (lambda f: _bad(f, conversations=_bad(f)["conversations"][:1]), "answer is missing"),
    "no conversation": (lambda f: _bad(f, conversations=None), "speakers"),
    "id used before": (lambda f: f.record("good", "000001.png"), "id occurs twice"),
    "missing depth": (lambda f: _bad(f, image="000007.png"), "000007_depth.png is missing"),
    "fewer marks than masks": (lambda f: _bad(f, rle=_bad(f)["rle"] * 2), "2 <mask> but 4 masks"),
    "runs of another sum": (
        lambda f: _bad(f, rle=[{"size": [36, 64], "counts": [2303]}] * 2),
        "do not fill a mask of 36x64",
    ),
    "infinite mask": (lambda f: _sized(f, [float("inf"), 64]), "mask 0 is unreadable"),
    "fractional mask": (lambda f: _sized(f, [36.5, 64]), "mask 0 is unreadable"),
    "negative mask": (lambda f: _sized(f, [-36, -64]), "mask 0 is unreadable"),
    "null answer": (lambda f: _answered(f, None), "turn 1 of the conversation has no text"),
    "blank answer": (lambda f: _answered(f, " \n"), "answer is missing"),
    "half a character": (lambda f: _answered(f, "2.5 \ud83d"), "no Unicode character"),
    "path of another system": (lambda f: _bad(f, image="..\\000001.png"), "inside the data folder"),
    "path with control characters": (lambda f: _bad(f, image="a\0\n.png"), "inside the data folder"),
    "endless path": (lambda f: _bad(f, image="a" * 5000 + ".png"), "cannot be looked up"),
    "structured answer": (lambda f: _bad(f, normalized_answer={"a": 1}), "neither a number nor text"),
}


ODD = "neither text nor a whole number"


@pytest.mark.parametrize(
    ("own_id", "reason"),
    [
        (None, "has no id"),
        ("", "has no id"),
        ([], rf"its id \[\] is {ODD}"),
        (1.5, f"its id 1.5 is {ODD}"),
        (True, f"its id True is {ODD}"),
    ],
)
def test_a_record_without_a_usable_id_is_named_by_its_picture(folder, own_id, reason):
    folder.add_picture("000001")
    folder.write([folder.record("good", "000001.png"), folder.record(own_id, "000001.png")])
    with pytest.raises(DataError, match=f"train.json: record 1 of picture '000001.png': {reason}"):
        read_warehouse(folder.root, "train")


def test_every_bad_record_is_counted(folder):
    folder.add_picture("000001")
    folder.write([folder.record("a", "000001.png")] * 3 + [folder.record("b", "000009.png")] * 2 + [7])
    bad = BadRecords("report")
    (picture,) = read_warehouse(folder.root, "train", on_bad_record=bad)
    assert len(picture.questions) == 1 and len(bad.reasons) == 5
    assert "5 bad records left out" in bad.summary()
    assert "record 5: is a number" in bad.reasons[-1]


def test_a_broken_record_does_not_make_a_test_split_one_with_answers(folder):
    folder.add_picture("000001", "test")
    record = folder.record("a", "000001.png")
    public = {key: record[key] for key in ("id", "image", "rle")} | {"conversations": record["conversations"][:1]}
    folder.write([public, public | {"id": "b", "conversations": [1, 2, 3]}], "test.json")
    bad = BadRecords("report")
    (picture,) = read_warehouse(folder.root, "test", on_bad_record=bad)
    assert [question.id for question in picture.questions] == ["a"] and len(bad.reasons) == 1


def test_an_empty_mask_is_a_region_that_weighs_nothing(folder):
    folder.add_picture("000001")
    record = folder.record("a", "000001.png")
    record["rle"][1] = {"size": [36, 64], "counts": "PX2"}  # one run of 36 * 64 pixels outside
    folder.write([record])
    ((question,),) = [picture.questions for picture in read_warehouse(folder.root, "train")]
    assert masks.decode(question.regions[1]).shape == (36, 64)
    assert masks.resample_rle(question.regions[0], 8).any()
    assert not masks.resample_rle(question.regions[1], 8).any()


def test_one_file_under_two_names_is_one_picture(folder):
    folder.add_picture("000001")
    folder.write([folder.record("a", "000001.png"), folder.record("b", "./000001.png")])
    (picture,) = read_warehouse(folder.root, "train")
    assert [question.id for question in picture.questions] == ["a", "b"]


@pytest.mark.parametrize("case", BAD)
def test_bad_records_stop_or_are_reported_with_their_id(folder, case):
    make, message = BAD[case]
    folder.add_picture("000001")
    (folder.root / "train/images/000008.png").write_bytes(b"")
    (folder.root / "train/depths/000008_depth.png").write_bytes(b"")
    (folder.root / "train/images/000007.png").write_bytes(b"")
    bad = make(folder)
    folder.write([folder.record("good", "000001.png"), bad, folder.record("fine", "000001.png")])
    with pytest.raises(DataError, match=message) as caught:
        read_warehouse(folder.root, "train")
    text = str(caught.value)
    assert repr(bad["id"]) in text and "train.json" in text and "\n" not in text
    collected = BadRecords("report")
    pictures = read_warehouse(folder.root, "train", on_bad_record=collected)
    assert [q.id for p in pictures for q in p.questions] == ["good", "fine"]
    assert collected.reasons == [text]


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "cannot be read"),
        (b"{", "not valid JSON"),
        (b"{}", "expected a list"),
        (b'["\xff"]', "not valid JSON .*utf-8"),
        ("[".encode("utf-16"), "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_an_unusable_annotation_file_is_one_sentence(folder, content, message):
    if content is not None:
        (folder.root / "val.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_warehouse(folder.root, "val")


def test_reads_captions_with_the_mark_at_either_end(folder):
    folder.add_picture("000001")
    folder.add_picture("000002")
    folder.write(
        [
            {
                "id": "a",
                "image": "000001.png",
                "conversations": [{"from": "human", "value": human}, {"from": "gpt", "value": "two pallets"}],
            }
            | {"id": str(i)}
            for i, human in enumerate(("<image>\nDescribe it.", "Describe it.\n<image>"))
        ],
        "chat.json",
    )
    (picture,) = read_captions(folder.root, "chat.json", "train/images")
    assert picture.depth is None
    assert [(q.category, q.prompt, q.answer, q.regions) for q in picture.questions] == [
        ("caption", "Describe it.", "two pallets", ())
    ] * 2


def test_real_records_without_pictures_are_all_reported(tmp_path):
    records = json.loads((REAL / "records_with_masks.json").read_text())
    (tmp_path / "val.json").write_text(json.dumps(records))
    collected = BadRecords("report")
    assert read_warehouse(tmp_path, "val", on_bad_record=collected) == []
    assert len(collected.reasons) == len(records)
