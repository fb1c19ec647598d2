from __future__ import annotations

import dataclasses
import json
import struct
import sys
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import eval.predict as command
import smolrgpt_jax
from eval.answering.one_picture import read_answer
from eval.predict import main
from eval.report.overlay import colour_of
from smolrgpt_jax.checkpoint.fingerprint import params_fingerprint
from smolrgpt_jax.data.masks import decode
from smolrgpt_jax.data.trained_on import TrainedOn
from tests.eval.conftest import FakeModel

FAR = "How far is the pallet <mask> from the pallet <mask>?"


@pytest.fixture
def asked(monkeypatch):
    """Replaces the model by one that records what it is asked."""
    calls = []
    seen = TrainedOn("sim", "pallet", "far from how pallet the", 1.0)
    tokenizer = SimpleNamespace(format=SimpleNamespace(trained_on=seen))
    model = SimpleNamespace(tokenizer=tokenizer, params=FakeModel.params)
    monkeypatch.setitem(smolrgpt_jax.__dict__, "load", lambda path, **_: model)

    def answer(model, image, question, **how):
        calls.append({"image": image, "question": question, **how})
        text = "0 stands 9 ahead 4 left. The pallet [Region 0] is 2.50 meters away from the pallet [Region 1]."
        found = read_answer(question, text, how["masks"], trained_on=seen)
        sure = how.get("confidence")
        return dataclasses.replace(found, confidence=sure and sure(found.category, -0.5))

    monkeypatch.setattr(command, "answer", answer)
    return calls


def files(warehouse):
    return [
        "--checkpoint",
        "anywhere",
        "--image",
        str(warehouse / "val/images/000100.png"),
        "--depth",
        str(warehouse / "val/depths/000100_depth.png"),
    ]


def test_boxes_become_regions_and_the_answer_is_printed_and_drawn(warehouse, tmp_path, asked, capsys):
    main(
        [
            *files(warehouse),
            "--boxes",
            "10,5,40,50",
            "60,20,90,55",
            "--question",
            FAR,
            "--out",
            str(tmp_path / "new" / "drawn.png"),
        ]
    )
    regions = asked[0]["masks"]
    expected = np.zeros((60, 96), np.uint8)
    expected[20:55, 60:90] = 1
    assert np.array_equal(decode(regions[1]), expected)
    assert asked[0]["question"] == FAR and asked[0]["depth"].name == "000100_depth.png"
    output = capsys.readouterr().out
    assert "anywhere: trained on sim (pallet); 100% of its questions mark regions, with depth\n" in output
    assert "\nanswer: The pallet [Region 0] is 2.50 meters away from the pallet [Region 1].\n" in output
    assert "\nworkings: 0 stands 9 ahead 4 left.\ndistance: 2.5\n" in output and "notice" not in output
    drawn = np.asarray(Image.open(tmp_path / "new" / "drawn.png"))
    assert drawn.shape == (60, 96, 3) and tuple(drawn[49, 10]) == colour_of(0)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["drawn.png"]


def test_json_has_conclusion_and_workings_apart(warehouse, asked, capsys):
    main([*files(warehouse)[:4], "--question", "How far is the car?", "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("answer").startswith("The pallet [Region 0] is") and printed.pop("cut_off") is False
    assert printed.pop("notice") == "the recorded training of this model never says car: its answer is a guess"
    expected = {"question": "How far is the car?", "workings": "0 stands 9 ahead 4 left."}
    assert printed == expected | {"category": "distance", "normalized_answer": 2.5}


def sure_file(folder, **changes):
    fingerprint = params_fingerprint(FakeModel.params)
    whole = {"checkpoint_fingerprint": fingerprint, "fits": {"distance": [[-9.0], [0.931]]}} | changes
    (folder / "sure.json").write_text(json.dumps(whole), encoding="utf-8")
    return ["--confidence", str(folder / "sure.json")]


def test_how_sure_the_answer_is_stands_below_it(warehouse, tmp_path, asked, capsys):
    plain = [*files(warehouse)[:4], "--question", "How far is the car?"]
    main([*plain, *sure_file(tmp_path)])
    assert "\ndistance: 2.5\nconfidence: 0.93, sure\n" in capsys.readouterr().out
    main([*plain, *sure_file(tmp_path), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["confidence"] == pytest.approx(0.931, abs=1e-3) and printed["confidence_word"] == "sure"
    main([*files(warehouse)[:4], "--question", "What is this?", *sure_file(tmp_path)])
    assert "\nconfidence: unknown\n" in capsys.readouterr().out
    main(plain)
    assert "confidence" not in capsys.readouterr().out


def test_the_confidence_of_another_model_is_refused(warehouse, tmp_path, asked):
    plain = [*files(warehouse)[:4], "--question", "How far is the car?"]
    with pytest.raises(SystemExit, match="sure.json: is of a model with the fingerprint f1, this one has"):
        main([*plain, *sure_file(tmp_path, checkpoint_fingerprint="f1")])
    with pytest.raises(SystemExit, match="sure.json: is no file of `smolrgpt confidence`"):
        main([*plain, *sure_file(tmp_path, fits=None)])
    assert not asked


def test_a_record_brings_its_masks_and_question(warehouse, asked):
    main([*files(warehouse), "--masks", str(warehouse / "val.json"), "--record", "000100-count"])
    assert asked[0]["question"].startswith("How many pallets") and len(asked[0]["masks"]) == 5


@pytest.mark.parametrize("wrap", [lambda masks: masks, lambda masks: {"rle": masks}])
def test_a_plain_list_or_one_record_of_masks_is_read(warehouse, tmp_path, asked, wrap):
    masks = json.loads((warehouse / "val.json").read_text(encoding="utf-8"))[0]["rle"]
    (tmp_path / "masks.json").write_text(json.dumps(wrap(masks)), encoding="utf-8")
    main([*files(warehouse), "--masks", str(tmp_path / "masks.json"), "--question", FAR])
    assert len(asked[0]["masks"]) == 2


def test_masks_are_read_from_png_files_in_their_order(warehouse, tmp_path, asked):
    expected = np.zeros((2, 60, 96), np.uint8)
    expected[0, 40:50, 3:30] = expected[1, 4:9, 60:90] = 1
    for index, mask in enumerate(expected):
        Image.fromarray(mask * 255).save(tmp_path / f"{index}.png")
    main([*files(warehouse), "--masks", str(tmp_path / "1.png"), str(tmp_path / "0.png"), "--question", FAR])
    assert np.array_equal([decode(region) for region in asked[0]["masks"]], expected[::-1])


def png_header(width: int, height: int) -> bytes:
    """The start of a PNG file, which says that it is much larger than it is."""
    fields = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    header = struct.pack(">I", 13) + fields + struct.pack(">I", zlib.crc32(fields))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 2**31 - 1) + b"IDAT"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--boxes", "1,2,3", "--question", FAR], "box 1,2,3 is not"),
        (["--boxes", "1,2,3,x", "--question", FAR], "box 1,2,3,x is not"),
        (["--boxes", "200,2,300,9", "5,5,9,9", "--question", FAR], "box 200,2,300,9 is not"),
        (["--boxes", "5,5,9,9", "--question", FAR], "2 <mask> but 1 mask"),
        (["--boxes", "5,5,9,9"], "no question"),
        (["--masks", "{data}/val.json"], "28 records"),
        (["--masks", "{data}/val.json", "--record", "x"], "'x'"),
        (["--masks", "{data}/none.json", "--question", FAR], "cannot be read"),
        (["--masks", "{data}/broken.json", "--question", FAR], "not valid JSON"),
        (["--masks", "{data}/deep.json", "--question", FAR], "not valid JSON"),
        (["--masks", "{data}/small.png", "{data}/small.png", "--question", FAR], "8x9 pixels"),
        (["--masks", "{data}/val/images/000100.png", "--question", FAR], "marks no pixel"),
        (["--masks", "{data}/cut.png", "{data}/small.png", "--question", FAR], "cut.png is truncated"),
        (["--masks", "{data}/small.png", "{data}/val.json", "--question", FAR], "one JSON file, or mask pictures"),
        (["--masks", "{data}/val.json", "{data}/bad.json", "--question", FAR], "one JSON file, or mask pictures"),
        (["--masks", "{data}/small.png", "--record", "x", "--question", FAR], "--record names a record"),
        (["--boxes", "0,0,9,9", "--question", "Is it <mask>?", "--image", "{data}/huge.png"], "80,000,000"),
        (["--boxes", "0,0,9,9", "--question", "Is it <mask>?", "--depth", "{data}/huge.png"], "80,000,000"),
        (["--masks", "{data}/bad.json", "--question", FAR], "mask 0 is unreadable"),
        (["--boxes", "5,5,9,9", "5,5,9,9", "--question", FAR, "--image", "{data}/none.png"], "none.png is missing"),
        (["--boxes", "5,5,9,9", "5,5,9,9", "--question", FAR, "--depth", "{data}/none.png"], "none.png is missing"),
        *(
            (
                ["--boxes", "5,5,9,9", "5,5,9,9", "--question", FAR, "--out", f"{{data}}/drawn.{suffix}"],
                "not the suffix",
            )
            for suffix in ("xyz", "h5", "xbm")  # the last one is for black and white
        ),
        (["--boxes", "5,5,9,9", "--question", "<mask>?<|im_end|>"], "holds <|im_end|>, which only the chat format may"),
        (["--masks", "{data}/twice.json", "--record", "7"], "holds 2 records '7'"),
    ],
)
def test_bad_input_ends_with_one_sentence_and_no_picture(warehouse, asked, arguments, message):
    (warehouse / "bad.json").write_text('[{"size": [60, 96], "counts": "!!"}]', encoding="utf-8")
    (warehouse / "broken.json").write_text("[{", encoding="utf-8")
    (warehouse / "twice.json").write_text('[{"id": 7, "rle": []}, {"id": "7", "rle": []}]', encoding="utf-8")
    (warehouse / "deep.json").write_text("[" * 100_000, encoding="utf-8")
    Image.new("L", (8, 9), 255).save(warehouse / "small.png")
    whole = (warehouse / "val/images/000101.png").read_bytes()
    (warehouse / "cut.png").write_bytes(whole[: whole.index(b"IDAT") + 12])
    (warehouse / "huge.png").write_bytes(png_header(20_000, 20_000))
    Image.new("RGB", (96, 60)).save(warehouse / "val/images/000100.png")
    before = sorted(warehouse.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        main([*files(warehouse), *(argument.format(data=warehouse) for argument in arguments)])
    assert str(stop.value).startswith("error: ") and message in str(stop.value) and "\n" not in str(stop.value)
    assert sorted(warehouse.rglob("*")) == before and not asked


def test_a_printed_minus_is_a_minus(warehouse, asked):
    main([*files(warehouse), "--boxes", "\u22123,5,40,50", "60,20,90,55", "--question", FAR])
    assert decode(asked[0]["masks"][0])[5:50, :40].all()


def test_regions_without_depth_are_refused(warehouse, asked):
    with pytest.raises(SystemExit, match="--depth"):
        main([*files(warehouse)[:4], "--boxes", "5,5,9,9", "15,5,19,9", "--question", FAR])


def test_depth_is_estimated_where_regions_need_it(warehouse, asked, monkeypatch, capsys):
    estimated = np.ones((60, 96), np.float32)
    made = []

    class DepthModel:
        def __init__(self, model):
            self.model = model

        def estimate(self, picture):
            made.append((picture, self.model))
            return estimated

    monkeypatch.setattr(command, "DepthModel", DepthModel)
    where = [*files(warehouse)[:4], "--depth", "estimate:some/model"]
    main([*where, "--boxes", "10,5,40,50", "60,20,90,55", "--question", FAR])
    assert made == [(warehouse / "val/images/000100.png", "some/model")] and asked[0]["depth"] is estimated
    assert "the depth is an estimate of some/model\n" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2 <mask> but 1 mask"):
        main([*where, "--boxes", "10,5,40,50", "--question", FAR])
    main([*where, "--question", "What is this?"])
    assert len(made) == 1


def test_boxes_are_tightened_where_that_is_asked_for(warehouse, asked, monkeypatch, box_rle):
    tight = (box_rle(12, 6, 30, 40), box_rle(61, 21, 80, 50))
    monkeypatch.setattr(command, "tighten", lambda picture, boxes: tight if len(boxes) == 2 else None)
    main([*files(warehouse), "--boxes", "10,5,40,50", "60,20,90,55", "--question", FAR, "--tighten"])
    assert asked[0]["masks"] == tight
    with pytest.raises(SystemExit, match="--tighten makes masks of boxes, give some with --boxes"):
        main([*files(warehouse), "--masks", str(warehouse / "val.json"), "--record", "000100-count", "--tighten"])


def test_without_what_tightens_boxes_no_depth_is_estimated(warehouse, asked, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr(command, "DepthModel", lambda model: pytest.fail("it was loaded first"))
    with pytest.raises(SystemExit, match=r"needs the package cv2: pip install -e '\.\[assist\]'"):
        main([*files(warehouse), *"--depth estimate --tighten --boxes 1,5,40,50 60,20,90,55 --question".split(), FAR])


def test_clicks_and_boxes_are_segmented_where_that_is_asked_for(warehouse, asked, monkeypatch, box_rle, capsys):
    masks, given = (box_rle(12, 6, 30, 40), box_rle(61, 21, 80, 50)), []

    class Segmenter:
        def __init__(self, model):
            given.append(model)

        def segment(self, picture, clicks, boxes):
            given.append((clicks, len(boxes)))
            return masks

    monkeypatch.setattr(command, "Segmenter", Segmenter)
    clicked = [*files(warehouse), "--click", "15,20", "--click", "70.5,30"]
    main([*clicked, "--question", FAR])
    main([*files(warehouse), "--boxes", "10,5,40,50", "60,20,90,55", "--question", FAR, "--tighten", "sam"])
    main([*clicked, "--question", FAR, "--segmenter", "some/model"])
    small = "facebook/sam2.1-hiera-tiny"
    clicks = ([(15, 20), (70.5, 30)], 0)
    assert given == [small, clicks, small, ([], 2), "some/model", clicks]
    assert [call["masks"] for call in asked] == [masks] * 3
    assert "the masks are those of some/model\n" in capsys.readouterr().out
    for more, sentence in (
        (["--click", "96,2"], "click 96,2 is not x,y inside the picture of 96x60 pixels"),
        (["--click", "-3,2"], "click -3,2 is not x,y inside"),
        (["--click", "5,2"], "2 <mask> but 3 masks"),
        (["--boxes", "5,5,9,9", "5,5,9,9"], "--click marks the regions, as --masks and --boxes do"),
        (["--tighten"], "--tighten makes masks of boxes"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            main([*clicked, "--question", FAR, *more])
    assert len(given) == 6
