"""The demo with a language model from warehouse to tables, a few steps per stage, on a decoder of random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import launch.demo
from configs import demo_language as settings
from launch import demo_language
from smolrgpt_jax.checkpoint.load import read_checkpoint

TOKENIZER = Path(__file__).parents[1] / "data_files" / "text" / "tokenizer"
FEW = {**settings.WAREHOUSE, "scenes": 12, "val_scenes": 2, "test_scenes": 3, "width": 96, "height": 54}


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    """A Llama folder of random weights with a tokenizer of 782 tokens."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("language") / "llama"
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(**sizes, vocab_size=782, max_position_embeddings=8192, tie_word_embeddings=True)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    for file in TOKENIZER.iterdir():
        shutil.copy(file, folder)
    return folder


@pytest.mark.slow
def test_from_a_warehouse_to_tables_and_on_from_where_it_was(language, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(settings, "WAREHOUSE", FEW)
    whole, trained = settings.get_config, []

    def few_steps(stage, root):
        trained.append(stage)
        config = whole(stage, root)
        config.update({"steps": 3, "batch_rows": 8, "validation_rows": 8, "data": {"row_tokens": 640}})
        return config

    monkeypatch.setattr(settings, "get_config", few_steps)
    workdir = tmp_path / "demo"
    demo_language.run(workdir, 1, str(language))
    assert trained == ["stage1", "stage2", "stage3", "frozen"]
    printed = capsys.readouterr().out
    assert (workdir / "language.md").read_text() in printed
    before, after, frozen = (read_checkpoint(workdir / name).params for name in ("start", "stage3", "frozen"))
    decoder = [name for name in before if name.startswith("decoder/")]
    assert all(np.array_equal(before[name], frozen[name]) for name in decoder)
    assert not any(np.array_equal(before[name], after[name]) for name in decoder)
    results = {
        n: json.loads((workdir / "eval" / n / "language.json").read_text()) for n in ("start", "stage3", "frozen")
    }
    assert results["start"].keys() == {"perplexity"}
    assert results["frozen"]["perplexity"] == results["start"]["perplexity"] != results["stage3"]["perplexity"]
    questions = json.loads((workdir / "data" / "test_answers.json").read_text())
    for stage in ("stage3", "frozen"):
        assert results[stage]["scores"].keys() == {"as trained", "in other words"}
        for words in ("as_trained", "in_other_words"):
            asked = json.loads((workdir / "eval" / stage / "words" / words / "predictions.json").read_text())
            assert len(asked) == len(questions)
    # What is there is not made again, and says the same.
    times = {file: file.stat().st_mtime_ns for file in (workdir / "eval").rglob("*")}
    demo_language.run(workdir, 1, str(language))
    assert {file: file.stat().st_mtime_ns for file in (workdir / "eval").rglob("*")} == times
    assert (workdir / "language.md").read_text() in capsys.readouterr().out


def test_scenes_that_are_tested_on_are_not_learned_from(tmp_path):
    with pytest.raises(ValueError, match="the seed is 910001, it must be from 0 to 899999"):
        demo_language.run(tmp_path / "demo", 910_001, "nowhere")
    assert not list(tmp_path.iterdir())


def test_a_language_model_that_is_not_there_is_refused_before_anything_is_made(monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "ROOT", str(tmp_path / "demo"))
    monkeypatch.setattr("sys.argv", ["demo", "--language", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match=f"{tmp_path / 'nowhere'}"):
        launch.demo.main()
    assert not list(tmp_path.iterdir())


def test_tables_say_what_other_words_and_training_cost():
    def scores(value):
        return {"S1": (value, (value - 1, value + 1)), "left_right": (value, None)}

    def result(value, lost, perplexity):
        found = {"as trained": scores(value), "in other words": scores(value + lost)}
        return {
            "scores": found,
            "differences": {"in other words": scores(lost)},
            "perplexity": perplexity,
            "blind": 31.25,
        }

    found = {
        "before": {"perplexity": 12.0},
        "decoder trained": result(80.0, -5.0, 20.5),
        "decoder frozen": result(60.0, -2.0, 12.0),
    }
    lines = demo_language.described(found).splitlines()
    assert "| decoder trained, as trained | 80.0 (79.0 to 81.0) | 80.0 |" in lines
    assert "| decoder frozen, in other words | 58.0 (57.0 to 59.0) | 58.0 |" in lines
    assert "| decoder trained | -5.0 (-6.0 to -4.0) | -5.0 |" in lines
    assert "Without looking, S1 is 31.2." in lines
    assert lines[-3:] == ["| before | 12.00 |", "| decoder trained | 20.50 |", "| decoder frozen | 12.00 |"]


@pytest.mark.parametrize("stage", settings.STAGES)
def test_every_stage_has_a_configuration(stage):
    config = settings.get_config(stage, "somewhere")
    assert config.steps > 0 and config.data.sources and config.init_from.startswith("somewhere/")


def test_an_unknown_stage_is_named():
    with pytest.raises(ValueError, match="no stage 'stage9'"):
        settings.get_config("stage9")
