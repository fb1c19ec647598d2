from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from launch import train_router as command
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES
from smolrgpt_jax.router.classify import load_router
from smolrgpt_jax.router.hf_folder import read_longformer

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


@pytest.fixture(scope="module")
def run():
    sizes = {"width": 16, "mlp_width": 16, "heads": 2, "layers": 1, "window": 16}

    def call(**arguments) -> Path:
        given = {"steps": 60, "batch": 8, "learning_rate": 0.02, **arguments}
        words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(command, "SIZES", sizes)
            patch.setattr(command, "POSITIONS", 32)
            patch.setattr("sys.argv", ["train_router", *words])
            command.main()
        return given["out"]

    return call


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_records(tmp_path_factory.mktemp("data") / "train.json")


@pytest.fixture(scope="module")
def trained(run, data, tmp_path_factory) -> Path:
    return run(data=data, out=tmp_path_factory.mktemp("trained") / "router")


def test_a_trained_router_is_one_for_transformers_too(trained):
    router = load_router(trained)
    texts = list(QUESTIONS.values())
    assert router.categories(texts) == list(QUESTIONS)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(trained).eval()
    batch = transformers.AutoTokenizer.from_pretrained(trained)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.numpy()
    assert np.max(np.abs(router.logits(texts) - wanted)) <= 1e-5 * np.max(np.abs(wanted))
    assert model.config.id2label == dict(enumerate(WAREHOUSE_CATEGORIES))


def test_the_same_seed_gives_the_same_bytes(run, data, trained, tmp_path, capsys):
    again = run(data=data, out=tmp_path / "again", val=data)
    assert (again / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert f"12 of 12 questions of {data} get their category" in capsys.readouterr().out


def test_training_goes_on_from_a_folder_with_its_tokenizer_and_a_new_head(run, data, trained, tmp_path):
    started = run(data=data, out=tmp_path / "started", init=trained, steps=1, learning_rate=1e-9, text="answer")
    (_, before, _), (_, after, values) = read_longformer(trained), read_longformer(started)
    # Only the head differs by more than the one step of almost no length.
    moved = {name for name, old in before.items() if np.max(np.abs(old - after[name])) > 1e-6}
    assert (
        {"head_dense/kernel", "head_out/kernel"}
        <= moved
        <= {"head_dense/kernel", "head_dense/bias", "head_out/kernel", "head_out/bias"}
    )
    assert values["router_text"] == "answer"
    assert (started / "tokenizer.json").read_bytes() == (trained / "tokenizer.json").read_bytes()


def test_bad_input_ends_with_one_sentence_and_leaves_nothing(run, data, tmp_path):
    out = tmp_path / "router"
    few = write_records(tmp_path / "few.json", WAREHOUSE_CATEGORIES[:3])
    with pytest.raises(SystemExit, match="error: .*few.json holds no record of category distance"):
        run(data=few, out=out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="error: .*config.json: no such file; a model"):
        run(data=data, out=out, init=tmp_path / "empty")
    with pytest.raises(SystemExit, match="error: a learning rate of 0.0 is not positive"):
        run(data=data, out=out, learning_rate=0.0)
    with pytest.raises(SystemExit, match="error: .*empty exists already"):
        run(data=data, out=tmp_path / "empty")
    assert not out.exists()
