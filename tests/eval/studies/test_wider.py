"""The study of wider training: what it trains on, and that every trained model is asked about every shifted warehouse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs import demo, studies
from eval.studies import findings, shift, wider
from eval.studies.__main__ import main
from eval.studies.trained import data_folder, settings, variant_folder
from smolrgpt_jax.warehouse.parameters import WarehouseConfig

WIDER = studies.TRAINED["wider"]


@pytest.mark.parametrize(("variant", "changes"), WIDER.items(), ids=str)
def test_a_variant_trains_on_its_own_warehouse_with_steps_of_the_same_time(variant, changes):
    root, usual = Path("root"), studies.training("root", "start", "cpu", 1, 16)
    config = wider.TASK.configuration(root, studies.training("root", "start", "cpu", 1, 16), changes)
    sources = (*config.data.sources.values(), *config.validation_sources.values())
    assert {source.root for source in sources} == {str(data_folder(root, changes))}
    # Padded tokens are what a step's time goes by.
    assert config.batch_rows * config.data.row_tokens == usual.batch_rows * usual.data.row_tokens
    assert config.steps == usual.steps * (2 if "twice" in variant else 1)
    made = WarehouseConfig(**studies.trained_warehouse("cpu", 1, changes))
    named = "all looks, all heights, up to 10 pallets" if variant == "the same, twice the steps" else variant
    assert made.seed == 1 and made.max_pallets == (10 if "10 pallets" in named else demo.WAREHOUSE["max_pallets"])
    assert made.appearance_variety == float("looks" in named)
    assert made.camera_variety == (1.0 if "heights" in named else demo.WAREHOUSE["camera_variety"])
    # The longest answer about ten pallets takes 340 tokens, about the demo's six 230.
    assert config.validation_answer_tokens >= (340 if made.max_pallets == 10 else 230)


def test_variants_have_warehouses_of_their_own_and_that_of_the_demo_is_shared():
    folders = {variant: data_folder(Path("root"), changes) for variant, changes in WIDER.items()}
    longer = folders.pop("the same, twice the steps")
    assert len(set(folders.values())) == len(WIDER) - 1 and folders["the demo's"] == Path("root/data")
    assert longer == folders["all looks, all heights, up to 10 pallets"]


def answered(folder: Path, right: bool) -> None:
    """A folder of results, as findings.score leaves it, of one question."""
    folder.mkdir(parents=True)
    item = {"id": "a", "image": "0.png", "category": "count", "normalized_answer": 2, "truth": 2 if right else 3}
    (folder / "predictions.json").write_text(json.dumps([item]))
    scores = dict.fromkeys(findings.SCORES, 100.0 * right)
    (folder / "metrics.json").write_text(json.dumps({**scores, "intervals": {"S1": [1.0, 99.0]}}))


def test_each_model_is_asked_about_each_shifted_warehouse_once(tmp_path, monkeypatch):
    asked = []

    def score(model, pictures, out, limits, **about):
        asked.append((model, pictures, about["variant"]))
        # It was not trained on what is fuller.
        answered(out, model == "up to 10 pallets" or "fuller" not in out.name)

    monkeypatch.setattr(findings, "score", score)
    monkeypatch.setattr(wider, "ensure_shifted", lambda folder, variant: folder / shift.folder_name(variant))
    monkeypatch.setattr(wider, "read_warehouse", lambda data, split: (data, split))
    results = {}
    for model in ("the demo's", "up to 10 pallets"):
        results[model] = tmp_path / model
        for _ in range(2):
            wider.TASK.test(model, tmp_path / "seed0", results[model], None, variant=model)
    assert len(asked) == 2 * len(studies.SHIFT)
    assert asked[3] == ("the demo's", (tmp_path / "shift" / "fuller", "val"), "the demo's, asked about: fuller")
    first, second = results.values()
    assert wider.TASK.scores(first) == {v: 100.0 * (v != "fuller") for v in studies.SHIFT}
    assert wider.TASK.of_run(first)["fuller"] == (0.0, (1.0, 99.0))
    gains = wider.TASK.paired(first, second)
    assert list(gains) == list(studies.SHIFT) and gains["fuller"][0] == 100.0 and gains["other looks"][0] == 0.0


def test_the_study_is_written_from_results_that_are_there(tmp_path, monkeypatch, capsys):
    """A table of the warehouses of the shift, one line per variant, without training what is done."""
    monkeypatch.setattr(wider.Wider, "prepare", lambda *_: None)
    runs = tmp_path / "runs"
    for variant, changes in WIDER.items():
        folder = runs / "wider" / "cpu" / "seed1" / variant_folder(changes)
        (folder / "shift").mkdir(parents=True)
        (folder / "settings.json").write_text(json.dumps(settings(wider.TASK, changes, 1, "cpu", None)))
        for shifted in studies.SHIFT:
            answered(folder / "shift" / shift.folder_name(shifted), right=variant != "the demo's")
        (folder / "shift" / "metrics.json").write_text(json.dumps(dict.fromkeys(studies.SHIFT, 50.0)))
    main(["wider", "--out", str(tmp_path / "out"), "--runs", str(runs), "--seeds", "1"])
    table = capsys.readouterr().out
    assert "| variant | as in training | cameras of all heights | other looks | fuller | all of these |" in table
    assert "| all looks | 100.0 (1.0 to 99.0) |" in table and "| up to 10 pallets | +100.0" in table
