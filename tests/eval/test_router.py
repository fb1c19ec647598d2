from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from eval import router as command
from eval.reading.methods import routed_answer
from eval.router import agreement, describe_agreement
from launch.train_router import BEGIN, DEMO_TOKENIZER, END, PAD
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES
from smolrgpt_jax.errors import CheckpointError, DataError
from smolrgpt_jax.router.classify import (
    Router,
    RouterText,
    RouterTokenizer,
    classifier_tokenizer_files,
    load_router,
    pad_rows,
)
from smolrgpt_jax.router.hf_folder import longformer_config_values, write_longformer
from smolrgpt_jax.router.longformer import LongformerConfig, bind, init_params

FILES = classifier_tokenizer_files(DEMO_TOKENIZER, BEGIN, END, PAD)
CONFIG = LongformerConfig(
    WAREHOUSE_CATEGORIES, vocab_size=640, positions=81, width=16, mlp_width=16, heads=2, layers=1, window=8, pad_id=0
)


@pytest.fixture(scope="module")
def params() -> dict:
    return init_params(CONFIG, jax.random.key(0))


def write_router(folder: Path, params: dict, labels=WAREHOUSE_CATEGORIES, **values) -> Path:
    config = LongformerConfig(**{**vars(CONFIG), "labels": tuple(labels)})
    write_longformer(folder, config, params, {**longformer_config_values(config), **values}, FILES)
    return folder


def test_logits_do_not_depend_on_batches_and_padding(params, monkeypatch):
    monkeypatch.setattr("smolrgpt_jax.router.classify.BATCH", 2)
    tokenizer = RouterTokenizer(FILES["tokenizer.json"], CONFIG.longest, CONFIG.vocab_size)
    router = Router(CONFIG, params, tokenizer)
    texts = ["How many?", "Which of " + "<mask> " * 30, "left", "Is it far? " * 3, "right or left?", ""]
    found = router.logits(texts)
    # Lengths of 32 and more than 32 tokens, cut at 80 positions.
    rows, truncated = tokenizer.encode(texts)
    assert router.truncated == truncated == 1 and len(rows[1]) == 80
    together = np.asarray(bind(CONFIG, params)(*pad_rows(rows, 80, 0))["logits"])
    assert np.max(np.abs(found - together)) <= 1e-5 * np.max(np.abs(together))
    assert router.categories(texts) == [WAREHOUSE_CATEGORIES[i] for i in np.argmax(found, axis=-1)]


def test_agreement_counts_by_the_rules_category():
    texts = [
        RouterText("a", "How many pallets?", "count"),
        RouterText("b", "How many boxes?", "mcq"),
        RouterText("c", "Which one?", ""),
        RouterText("d", "Hello", ""),
    ]
    found = agreement(texts, ["count", "mcq", "mcq", "left_right"])
    assert found["categories"] == {
        "count": {"questions": 2, "agree": 1},
        "mcq": {"questions": 1, "agree": 1},
        "none": {"questions": 1, "agree": 0},
    }
    assert found["all"] == {"questions": 4, "agree": 2}
    assert found["published"] == {"questions": 2, "rules": 1, "router": 2}
    assert [case["id"] for case in found["disagreements"]] == ["b", "d"]
    text = describe_agreement(found, examples=1)
    assert "b: rules count, router mcq: How many boxes?" in text
    assert "count                2         1  50.00 %" in text
    assert "the rules find 50.00 %, the router 100.00 %" in text


def test_types_that_differ_fall_back_as_in_the_published_pipeline():
    assert routed_answer("left_right", "count", "Left or right?", "right") == "left"
    assert routed_answer("distance", "count", "How far?", "3 pallets") == 1
    assert routed_answer("distance", "distance", "How far?", "It is 3.5 meters away.") == 3.5


def test_the_command_prints_and_writes_the_agreement(params, warehouse, tmp_path, monkeypatch, capsys):
    folder, out = write_router(tmp_path / "router", params), tmp_path / "agreement.json"
    arguments = ["--router", str(folder), "--data", str(warehouse / "val.json"), "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["router", *arguments])
    command.main()
    found = json.loads(out.read_text())
    assert found["all"]["questions"] == found["published"]["questions"] == 28
    assert found["published"]["rules"] == 28
    assert found["published"]["router"] == found["all"]["agree"] == 28 - len(found["disagreements"])
    assert "the rules find 100.00 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    "labels, values, message",
    [
        (("a", "b", "c", "d"), {}, "the labels are a, b, c, d, expected some of left_right"),
        (WAREHOUSE_CATEGORIES, {"router_text": "answer"}, "was trained on answers"),
    ],
)
def test_the_command_refuses_other_classifiers(params, warehouse, tmp_path, monkeypatch, labels, values, message):
    folder = write_router(tmp_path / "router", params, labels, **values)
    monkeypatch.setattr("sys.argv", ["router", "--router", str(folder), "--data", str(warehouse / "val.json")])
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        command.main()


def test_folders_that_hold_no_router_are_refused(params, tmp_path):
    with pytest.raises(CheckpointError, match="no such file; a model is a folder"):
        load_router(tmp_path)
    folder = write_router(tmp_path / "router", params)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="router holds no tokenizer.json"):
        load_router(folder)
