"""The share of captions that are right, from hand-made flags and on the shipped backbone."""

from __future__ import annotations

import json

import numpy as np
import pytest

from configs import demo, demo_backbone
from eval import captions
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.records import Question
from smolrgpt_jax.warehouse.make_scene import draw_scene
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.words.captioning import Captioner

ANSWER = "0 stands 12 ahead 3 left. 1 at 5 ahead 4 right apart 7 across 7 along off 9 nearest 1 off 9."


@pytest.fixture(scope="module")
def tokenizer():
    return ChatTokenizer.load(demo.TOKENIZER)


def shares_with_wrong(tokenizer, *wrong: str):
    """Shares for ANSWER where the tokens that begin at these texts (the last place of each) are wrong."""
    spans = tokenizer.spans(ANSWER)
    right = np.ones(len(spans) + 2, bool)
    for text in wrong:
        right[[i for i, (b, e) in enumerate(spans) if b <= ANSWER.rindex(text) < e]] = False
    question = Question("q", "region_caption", "Reckon <mask> to <mask>.", ANSWER, None)
    return captions.shares_right([question], {"q": right}, {"q": spans})


def test_spans_are_those_of_the_tokens(tokenizer):
    spans = tokenizer.spans(ANSWER)
    assert len(spans) == len(tokenizer.tokens(ANSWER))
    assert "".join(ANSWER[b:e] for b, e in spans).replace(" ", "") == ANSWER.replace(" ", "")


def test_a_caption_is_right_where_all_its_tokens_are(tokenizer):
    found = shares_with_wrong(tokenizer)
    assert found["kind"] == {"reckon_each": {"right": 100, "of": 1}}
    assert found["step"]["ahead"] == {"right": 100, "of": 2}
    found = shares_with_wrong(tokenizer, "5 ahead", "9 nearest")
    assert found["kind"]["reckon_each"]["right"] == 0
    wrong = {name: step["right"] for name, step in found["step"].items() if step["right"] < 100}
    assert wrong == {"ahead": 50, "off": 0}


def test_the_kind_is_told_by_the_prompt():
    trained = {kind for phase in demo_backbone.PHASES.values() for kind in phase.captions}
    config = WarehouseConfig(**{**demo_backbone.warehouse("review"), "width": 96, "height": 54})
    seen = set()
    for index in range(40):
        _, _, regions, rng = draw_scene(config, "train", index)
        for kind in trained:
            captioner = Captioner(regions, config.max_caption_regions, rng, config.answers)
            for caption in captioner.captions({kind: 2}):
                assert captions.caption_kind(caption.prompt, caption.text) == kind
                seen.add(kind)
    assert seen == trained


@pytest.mark.slow
def test_the_shipped_backbone_marks_what_a_place_means(tmp_path, capsys):
    out = tmp_path / "out"
    captions.main(["--checkpoint", demo.BACKBONE, "--phase", "review", "--scenes", "6", "--out", str(out)])
    found = json.loads((out / "captions.json").read_text())
    records = json.loads((out / "data" / "val_regions.json").read_text())
    assert sum(row["of"] for row in found["kind"].values()) == len(records)
    assert found["step"]['"no" mark']["right"] > 90
    assert found["step"]['"with" or "apart"']["right"] > 95
    assert "| side | " in capsys.readouterr().out


def test_a_folder_without_a_checkpoint_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match="error: .*nothing"):
        captions.main(
            [
                "--checkpoint",
                str(tmp_path / "nothing"),
                "--phase",
                "see",
                "--scenes",
                "1",
                "--out",
                str(tmp_path / "out"),
            ]
        )
