"""The command's arguments, what it does for a configuration, and that no damage ends it in a traceback."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given

from launch import check_data
from tests.mutations import changed, changed_copy, files_of, numbers_of_examples, reproducible
from tests.own_folder import HEIGHT, WIDTH, distance


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give a folder, or a configuration"),
        (["DIR", "--limit", "0"], "'0' is not a positive whole number"),
        (["DIR", "--format", "coco"], "'coco' is not NAME[,FIELD=VALUE...] with a NAME of warehouse, captions"),
        (["DIR", "--format", "osd,annotations"], "'osd,annotations' is not NAME"),
        (["DIR", "--accept", "all"], "invalid choice: 'all'"),
        (["DIR", "--config.data.row_tokens=9"], "--config.data.row_tokens=9 changes a configuration"),
        (["--format", "osd"], "give a folder"),
    ],
)
def test_bad_usage_ends_with_status_2(arguments, said, own, tmp_path, capsys):
    given = [str(own.root) if text == "DIR" else text for text in arguments]
    with pytest.raises(SystemExit) as end:
        check_data.main([*given, "--out", str(tmp_path / "page.html")])
    assert end.value.code == 2 and said in capsys.readouterr().err


def test_what_cannot_be_looked_at_at_all_is_one_sentence_and_no_page(own, look, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "is not there" in look(tmp_path / "nowhere").status
    assert "is a file, expected a folder" in look(own.root / "train.json").status
    verdict = look(tmp_path / "empty")
    assert "empty holds no data by the names of a format" in verdict.status and not verdict.page.exists()
    verdict = look(own.root, "--config", "configs/nothing.py")
    assert verdict.status == "error: --config configs/nothing.py: no such file" and not verdict.page.exists()


def test_with_a_limit_pictures_are_spread_and_their_number_told(own, look):
    log = logging.getLogger("smolrgpt_jax.data.images")
    before = log.level
    verdict = look(own.root, "--limit", "3")
    assert log.level == before, "other commands of the process log as they did"
    assert verdict.status == 0 and "looked at 3 of 9 pictures and all 18 questions" in verdict.printed
    assert "3 of the 9 pictures were decoded" in verdict.page.read_text()


CONFIG = ["--config", "configs/stage3_sft.py"]


def test_a_configuration_brings_its_sources_and_its_rows(own, look):
    root = f"--config.data.sources.warehouse.root={own.root}"
    both = [*CONFIG, root, f"--config.validation_sources.warehouse.root={own.root}"]
    verdict = look(None, *both)
    assert verdict.status == 0 and "looked at 9 of 9 pictures" in verdict.printed
    verdict = look(None, *both, "--config.data.row_tokens=110")
    assert verdict.status == 1 and "more than the 110 of a row" in verdict.wrong["row"][0]
    verdict = look(own.root, *CONFIG, "--config.data.row_regions=1")
    assert verdict.status == 1 and len(verdict.wrong["row"]) == 18
    assert "has 2 regions, more than the 1 of a row's picture" in verdict.wrong["row"][0]


def test_a_start_brings_model_and_tokenizer(own, look):
    start = [*CONFIG, "--config.init_from=configs/backbone", "--config.data.region_names"]
    assert "32 x 32 points" in look(own.root, *start).page.read_text()
    later = look(own.root, "--config", "configs/demo.py:stage3", "--config.init_from=runs/nowhere")
    assert later.told["model"] == ["config.init_from: runs/nowhere is not there"]


def test_a_pictures_questions_depth_and_bytes_that_are_only_odd_are_told(own, look):
    rgb = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    own.save(rgb, "train/images/spare.png")
    copy = (own.root / "train/images/train0.png").read_bytes()
    (own.root / "train/images/copy.png").write_bytes(copy)
    depth = (own.root / "train/depths/train0_depth.png").read_bytes()
    (own.root / "train/depths/copy_depth.png").write_bytes(depth)
    holes = np.linspace(255, 1, HEIGHT)[:, None].repeat(WIDTH, 1).astype(np.uint16)
    holes[:, ::2] = 0
    own.save(holes, "train/depths/train1_depth.png")
    again = own.records()[2] | {"id": "again"}
    own.write([*own.records(), again, distance("copy", 2.5, conversations=[*TEXT])])
    verdict = look(own.root)
    assert verdict.status == 0, verdict.wrong
    assert "no question about" in verdict.told["unasked"][0] and "spare.png" in verdict.told["unasked"][0]
    assert "copy.png is " in verdict.told["same_picture"][0] and "train0.png" in verdict.told["same_picture"][0]
    assert "train1_depth.png: 50% is 0" in verdict.told["holes"][0]
    assert verdict.told["narrow"] == ["train.json, depth in 16 bits: no value above 255"]
    assert verdict.told["repeated"] == [f"{own.root}/train.json: record 'again' asks what 'train1-d' does"]
    assert "record 'copy-d': the rules read no value" in verdict.told["unread"][0]


def test_records_under_a_name_of_no_format_are_told(own, look):
    (own.root / "val.json").rename(own.root / "valid.json")
    (own.root / "metadata.json").write_text('{"seed": 1}')
    verdict = look(own.root)
    assert verdict.status == 0 and "looked at 6 of 6 pictures" in verdict.printed
    assert verdict.told == {"unlooked": [f"{own.root}/valid.json is of no format by its name"]}
    named = look(own.root, "--format", "warehouse,split=val,annotations=valid.json")
    assert not named.told and "valid.json (warehouse): 3 pictures" in named.printed


TEXT = [
    {"from": "human", "value": "How far is the big box <mask> from the box <mask>?"},
    {"from": "gpt", "value": "Quite far."},
]


@numbers_of_examples(few=6)
def test_no_damage_ends_in_a_traceback(own, look, tmp_path, examples):
    files, folders = files_of(own.root), iter(range(10**6))

    @reproducible(examples)
    @given(changed(files))
    def one_change(change):
        root = changed_copy(own.root, tmp_path / f"copy{next(folders)}", *change)
        before = files_of(root)
        assert look(root).status in (0, 1)
        assert files_of(root) == before

    one_change()
