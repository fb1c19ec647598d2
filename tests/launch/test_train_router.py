from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from eval.router import load_router
from launch import train_router as command
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES

QUESTIONS = {
    "left_right": "Is pallet <mask> left or right of pallet <mask>?",
    "count": "How many pallets are in <mask>?",
    "mcq": "Which pallet of <mask> is easiest to reach?",
    "distance": "How far is <mask> from <mask>?",
}


def write_records(path: Path, categories=WAREHOUSE_CATEGORIES) -> Path:
    records = [
        {
            "id": f"{category}-{number}",
            "category": category,
            "conversations": [
                {"from": "human", "value": "<image>\n" + QUESTIONS[category] + " Please." * number},
                {"from": "gpt", "value": "It is so."},
            ],
        }
        for category in categories
        for number in range(3)
    ]
    path.write_text(json.dumps(records))
    return path


@pytest.fixture
def run(monkeypatch, tmp_path):
    sizes = {"width": 16, "mlp_width": 16, "heads": 2, "layers": 1, "window": 16}
    monkeypatch.setattr(command, "SIZES", sizes)
    monkeypatch.setattr(command, "POSITIONS", 32)

    def call(**arguments) -> Path:
        given = {
            "data": tmp_path / "train.json",
            "out": tmp_path / "router",
            "steps": 60,
            "batch": 8,
            "learning_rate": 0.02,
            **arguments,
        }
        words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        monkeypatch.setattr("sys.argv", ["train_router", *words])
        command.main()
        return given["out"]

    return call


def test_a_trained_router_is_one_for_transformers_too_and_can_be_trained_from(run, tmp_path, capsys):
    data = write_records(tmp_path / "train.json")
    folder = run(val=data)
    assert f"12 of 12 questions of {data} get their category" in capsys.readouterr().out
    router = load_router(folder)
    texts = list(QUESTIONS.values())
    assert router.categories(texts) == list(QUESTIONS)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.numpy()
    assert np.max(np.abs(router.logits(texts) - wanted)) <= 1e-5 * np.max(np.abs(wanted))
    assert model.config.id2label == dict(enumerate(WAREHOUSE_CATEGORIES))

    again = run(out=tmp_path / "again", init=folder, steps=2, text="answer")
    assert load_router(again).kind == "answer"
    assert json.loads((again / "config.json").read_text())["hidden_size"] == 16
    assert (again / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_the_same_seed_gives_the_same_bytes(run, tmp_path):
    write_records(tmp_path / "train.json")
    first, second = (
        (run(out=tmp_path / name, steps=3) / "model.safetensors").read_bytes() for name in ("first", "second")
    )
    assert first == second


def test_bad_input_ends_with_one_sentence_and_leaves_nothing(run, tmp_path):
    write_records(tmp_path / "train.json", WAREHOUSE_CATEGORIES[:3])
    with pytest.raises(SystemExit, match="error: .*train.json holds no record of category distance"):
        run()
    write_records(tmp_path / "train.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="error: .*config.json: no such file; a Longformer"):
        run(init=tmp_path / "empty")
    with pytest.raises(SystemExit, match="error: a learning rate of 0.0 is not positive"):
        run(learning_rate=0.0)
    with pytest.raises(SystemExit, match="error: .*empty exists already"):
        run(out=tmp_path / "empty")
    assert not (tmp_path / "router").exists()
