"""Studies that train: what their variants begin with, and a tiny study from beginning to end."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import demo, studies
from eval.studies import batch, sizes, trained, wider
from eval.studies.__main__ import main
from smolrgpt_jax import load
from smolrgpt_jax.checkpoint.torch import read_folder
from smolrgpt_jax.models.smolrgpt import abstract_params, init_params
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse


@pytest.fixture(scope="module")
def backbone():
    return read_folder(Path(demo.BACKBONE))


MODELS = [studies.section(changes, "model") for found in studies.TRAINED.values() for changes in found.values()]
VARIANTS = {str(changes): changes for changes in MODELS}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=str)
def test_every_variant_begins_with_the_backbones_encoder_and_decoder(backbone, monkeypatch, changes):
    base, params, _ = backbone
    config = trained.variant_config(base, changes)
    fresh, key = init_params(config, jax.random.key(3)), jax.random.key_data(jax.random.key(3))
    drawn = []

    def drawn_once(its_config, its_key):
        drawn.append((its_config, jax.random.key_data(its_key).tolist()))
        return fresh

    monkeypatch.setattr(trained, "init_params", drawn_once)
    started = trained.start_params(config, params, 3)
    assert drawn == [(config, key.tolist())]
    assert set(started) == set(abstract_params(config))
    for name, value in started.items():
        assert value.dtype == np.float32 and value.shape == fresh[name].shape
        if not name.startswith(("vision_encoder/", "decoder/")):
            np.testing.assert_array_equal(value, fresh[name])
        elif name != trained.POSITIONS:
            np.testing.assert_array_equal(value, np.asarray(params[name], np.float32))


def test_positions_of_larger_pictures_are_those_between(backbone):
    base, params, _ = backbone
    table = np.asarray(params[trained.POSITIONS], np.float32).reshape(8, 8, -1)
    config = trained.variant_config(base, {"image_size": 192})
    larger = trained.start_params(config, params, 0)[trained.POSITIONS].reshape(12, 12, -1)
    # Patch centres of the finer grid lie at (i + 1/2) * 8/12 - 1/2 of the coarser one: 1, 4 and 7 on 0.5, 2.5 and 4.5.
    between = table[2, 2:4].mean(0) / 2 + table[3, 2:4].mean(0) / 2
    spread = table.std()
    np.testing.assert_allclose(larger[4, 4], between, atol=0.5 * spread)
    assert np.corrcoef(larger[4, 4], between)[0, 1] > 0.95


@pytest.fixture
def short_answers(monkeypatch):
    """Trainings whose validation asks for few tokens: an untrained model rarely ends its answers by itself."""
    training = studies.training

    def shortened(*arguments):
        config = training(*arguments)
        config.validation_answer_tokens = 4
        return config

    monkeypatch.setattr(studies, "training", shortened)


@pytest.mark.slow
def test_a_tiny_study_from_beginning_to_end(short_answers, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(studies.SIZES, "cpu", {"steps": 2, "scenes": 4})
    monkeypatch.setattr(demo, "WAREHOUSE", {**demo.WAREHOUSE, "val_scenes": 2, "test_scenes": 2})
    monkeypatch.setitem(studies.TRAINED, "depth", {"separate, as published": {}})
    begun, train = [], trained._train
    monkeypatch.setattr(trained, "_train", lambda folder, *more: begun.append(folder) or train(folder, *more))
    runs = tmp_path / "runs"

    def study(name: str, *seeds: str) -> tuple[str, dict]:
        """The table that a study writes, and what it found."""
        out = tmp_path / name
        shorter = ["--runs", str(runs), "--max_new_tokens", "4"]
        main([name, "--out", str(out), *shorter, "--seeds", *seeds])
        return (out / "table.md").read_text(), json.loads((out / "study.json").read_text())

    table, written = study("depth", "5", "6")
    assert written["seeds"] == [5, 6] and list(written["variants"]) == ["separate, as published"]
    assert "| separate, as published | " in table and len(begun) == 2
    # What another study has done is not done again: the model as published.
    table, written = study("refiners", "5")
    assert (
        written["seeds"] == [5] and list(written["variants"]) == list(studies.TRAINED["refiners"]) and len(begun) == 3
    )
    for variant, changes in studies.TRAINED["refiners"].items():
        assert f"| {variant} | " in table
        model = load(runs / "warehouse" / "cpu" / "seed5" / trained.variant_folder(changes) / "train")
        assert vars(model.config).items() >= changes.items()
    # Nor what it has done itself.
    capsys.readouterr()
    assert study("refiners", "5") == (table, written) and len(begun) == 3
    assert table.splitlines()[0] in capsys.readouterr().out


@pytest.mark.slow
def test_a_tiny_study_of_sizes(short_answers, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(studies.SIZES, "cpu", {"steps": 2, "scenes": 6})
    kept = {name: studies.TRAINED["sizes"][name] for name in ("as published", "extent")}
    monkeypatch.setitem(studies.TRAINED, "sizes", kept)
    monkeypatch.setattr(demo, "WAREHOUSE", {**demo.WAREHOUSE, "test_scenes": 4})
    out = tmp_path / "out"
    main(["sizes", "--out", str(out), "--seeds", "3", "--max_new_tokens", "6"])
    seed = out / "runs" / "sizes" / "cpu" / "seed3"
    found = json.loads((out / "study.json").read_text())["variants"]
    assert list(found) == [*studies.TRAINED["sizes"], sizes.MEDIAN]
    assert set(found[sizes.MEDIAN]) == {"width right", "width error", "height right", "height error"}
    # Of one seed the intervals are over pictures; what is not trained has none.
    low, high = found["extent"]["width right"]["interval"]
    assert low <= found["extent"]["width right"]["value"] <= high
    assert found[sizes.MEDIAN]["width right"]["interval"] is None
    assert 0 < found[sizes.MEDIAN]["width right"]["value"] <= 100
    assert load(seed / "region_extent=True" / "train").config.region_extent
    asked = json.loads((seed / "region_extent=True" / "eval" / "predictions.json").read_text())
    assert {item["category"] for item in asked} == {"width_data", "height_data"}
    assert f"| {sizes.MEDIAN} | " in capsys.readouterr().out


def test_a_seed_given_twice_and_other_data_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="the seeds 1 2 1 hold one twice"):
        main(["refiners", "--out", str(tmp_path / "out"), "--seeds", "1", "2", "1"])
    with pytest.raises(SystemExit, match="seeds must be from 0 to 899999"):
        main(["refiners", "--out", str(tmp_path / "out"), "--seeds", "900009"])
    assert not (tmp_path / "out").exists()
    few = {**demo.WAREHOUSE, "scenes": 2, "val_scenes": 0, "test_scenes": 0, "width": 96, "height": 54}
    make_warehouse(
        tmp_path / "out" / "runs" / "warehouse" / "cpu" / "seed1" / "data", WarehouseConfig(**few, seed=1), workers=1
    )
    with pytest.raises(SystemExit, match="holds a warehouse with other height, scenes"):
        main(["refiners", "--out", str(tmp_path / "out"), "--seeds", "1"])


def test_results_made_with_other_settings_are_refused(tmp_path, monkeypatch):
    """Those of a run that is done are not taken for those of the settings of today."""
    arguments = ["refiners", "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs"), "--seeds", "1"]
    monkeypatch.setitem(studies.TRAINED, "refiners", {"as published": {}})
    monkeypatch.setattr(trained.Task, "prepare", lambda *_: None)
    monkeypatch.setattr(trained.Task, "of_run", lambda *_: {"S1": (50.0, (40.0, 60.0))})
    folder = tmp_path / "runs" / "warehouse" / "cpu" / "seed1" / "as_published"
    wanted = trained.settings(trained.WAREHOUSE, {}, 1, "cpu", None)
    (folder / "eval").mkdir(parents=True)
    scores = dict.fromkeys(("S1", "left_right", "count", "mcq", "distance"), 50.0)
    (folder / "eval" / "metrics.json").write_text(json.dumps(scores))
    (folder / "train").mkdir()
    with pytest.raises(SystemExit, match="as_published does not say what it was made with"):
        main(arguments)
    (folder / "settings.json").write_text(json.dumps(wanted))
    main(arguments)
    assert json.loads((tmp_path / "out" / "study.json").read_text())["variants"]["as published"]["S1"] == {
        "value": 50.0,
        "interval": [40.0, 60.0],
    }
    with pytest.raises(SystemExit, match="with other settings .*max_new_tokens was None, is 9"):
        main([*arguments, "--max_new_tokens", "9"])
    monkeypatch.setitem(studies.SIZES, "cpu", {"steps": 7, "scenes": 3000})
    with pytest.raises(SystemExit, match="training.steps was 600, is 7"):
        main(arguments)


def test_older_studies_keep_their_settings_and_newer_ones_have_the_demos():
    stage3 = demo.get_config("stage3")
    for task in (trained.WAREHOUSE, sizes.TASK, batch.TASK, wider.TASK):
        config = task.configuration(Path("r"), studies.training("r", "start", "cpu", 0, 16), {"batch.rows": 8})
        found = config.question_balance, config.optimizer.final
        newer = task in (batch.TASK, wider.TASK)
        assert found == ((stage3.question_balance, stage3.optimizer.final) if newer else (0.0, 0.1))


def test_variants_of_a_study_have_folders_of_their_own():
    for variants in studies.TRAINED.values():
        folders = [trained.variant_folder(changes) for changes in variants.values()]
        assert len(set(folders)) == len(folders) and all("/" not in folder for folder in folders)
