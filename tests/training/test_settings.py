from __future__ import annotations

import importlib
import os

import pytest

from configs import default
from smolrgpt_jax.training.settings import SETTINGS, check, check_values, describe, differences, plain


def test_differences_name_what_changes_the_computation_only():
    old = {"seed": 0, "keep": 1, "mesh": {"fsdp": 2}, "data": {"row_tokens": 8, "threads": 1}}
    new = {"seed": 1, "keep": 9, "mesh": {"fsdp": 4}, "data": {"row_tokens": 9, "threads": 2}, "steps": 3}
    assert differences(old, new) == ["data.row_tokens was 8, is 9", "seed was 0, is 1", "steps was 0, is 3"]
    assert differences(old, old) == []


def test_tuples_and_lists_compare_as_json_gives_them_back():
    assert plain({"a": (1, 2), 3: {"b": [(4,)]}}) == {"a": [1, 2], "3": {"b": [[4]]}}


def test_settings_of_another_release_are_no_difference_where_they_mean_the_same():
    new = default.get_config().to_dict()
    old = {**plain(new), "fresh": [], "any_stage_order": False}
    del old["question_balance"]
    assert differences(old, new) == []
    assert differences({**old, "fresh": ["refiners"]}, new) == ["fresh was ['refiners'], is []"]
    assert differences(old, {**new, "question_balance": 0.5}) == ["question_balance was 0.0, is 0.5"]


def test_a_section_that_an_upgrade_added_is_no_difference_at_its_defaults():
    new = plain(default.get_config().to_dict())
    old = {name: value for name, value in new.items() if name not in ("profile", "optimizer")}
    assert differences(old, new) == differences(new, old) == []
    new["optimizer"]["b2"] = 0.95
    assert differences(old, new) == ["optimizer.b2 was 0.999, is 0.95"]


def test_places_are_compared_by_what_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("start", "other"):
        (tmp_path / name).mkdir()
    os.symlink("start", tmp_path / "link")
    for same in ("start/", "./start", "other/../start", "link", str(tmp_path / "start")):
        assert differences({"init_from": "start"}, {"init_from": same}) == []
    assert differences({"init_from": "start"}, {"init_from": "other"}) == ["init_from was 'start', is 'other'"]
    assert differences({"init_from": "start"}, {"init_from": ""}) == ["init_from was 'start', is ''"]
    (tmp_path / "start").rename(tmp_path / "moved")
    assert differences({"init_from": "start"}, {"init_from": "moved"}) == []
    sources = [{"data": {"sources": {"a": {"root": root, "split": "train"}}}} for root in ("here", "there")]
    assert differences(*sources) == []
    sources[1]["data"]["sources"]["a"]["split"] = "val"
    assert differences(*sources) == ["data.sources.a.split was 'train', is 'val'"]


def test_help_has_every_setting_with_default_and_range():
    lines = describe().splitlines()
    assert len(lines) == len(SETTINGS)
    assert "  --config.keep=2: newest checkpoints that stay (at least 1)" in lines
    assert any(line.startswith("  --config.data.on_bad_record=error: ") and "(error|report)" in line for line in lines)


def changed(name: str, value) -> dict:
    """The default settings with one changed."""
    run = default.get_config().to_dict()
    *way, last = name.split(".")
    part = run
    for key in way:
        part = part[key]
    part[last] = value
    return run


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stage", "sfft", "config.stage 'sfft' is not one of backbone, "),
        ("model.preset", "huge", "config.model.preset 'huge' is not one of .*demo"),
        ("keep", 0, "config.keep is 0, it must be a number at least 1"),
        ("batch_rows", -8, "config.batch_rows is -8, .* at least 1"),
        ("accumulation", 0, "config.accumulation is 0, .* at least 1"),
        ("validation_rows", 0, "config.validation_rows is 0, .* at least 1"),
        ("validation_rows", -3, "config.validation_rows is -3, .* at least 1"),
        ("steps", -5, "config.steps is -5, .* at least 0"),
        ("epochs", -1.0, "config.epochs is -1.0, .* at least 0"),
        ("epochs", 0.0, "config.steps and config.epochs are both 0"),
        ("epochs", float("inf"), "config.epochs is inf, it must be a number"),
        ("question_balance", float("nan"), "config.question_balance is nan"),
        ("question_balance", -0.5, "config.question_balance is -0.5, .* at least 0"),
        ("save_every", -1, "config.save_every is -1, .* at least 0"),
        ("validate_every", -1, "config.validate_every is -1, .* at least 0"),
        ("log_every", -1, "config.log_every is -1, .* at least 0"),
        ("seed", -1, "config.seed is -1, .* from 0 to 2147483647"),
        ("seed", 2**40, "config.seed is 1099511627776, .* from 0 to 2147483647"),
        ("optimizer.b2", 1.0, "config.optimizer.b2 is 1.0, .* at least 0 and below 1"),
        ("optimizer.clip_norm", 0.0, "config.optimizer.clip_norm is 0.0, .* above 0"),
        ("optimizer.warmup", 1.5, "config.optimizer.warmup is 1.5, .* from 0 to 1"),
        ("optimizer.peaks", {"decoder": -1e-3}, "config.optimizer.peaks.decoder is -0.001, .* at least 0"),
        ("data.row_tokens", -1, "config.data.row_tokens is -1, .* at least 0"),
        ("data.weights", {"a": 1.0}, "config.data.weights has 'a', which is not in config.data.sources"),
        ("data.on_bad_record", "foo", "config.data.on_bad_record 'foo' is not one of error, report"),
        ("data.depth_mode", "foo", "config.data.depth_mode 'foo' is not one of training, submission"),
        ("model.remat", "foo", "config.model.remat 'foo' is not one of auto, none, dots, full"),
        ("model.compute_dtype", "float8", "config.model.compute_dtype 'float8' is not one of float32, bfl"),
    ],
)
def test_meaningless_values_are_refused_by_their_name(name, value, message):
    with pytest.raises(ValueError, match=message) as error:
        check_values(changed(name, value))
    assert "\n" not in str(error.value)


def test_a_source_that_weights_do_not_name_is_an_error():
    run = changed("data.sources", {"a": {}, "b": {}})
    run["data"]["weights"] = {"a": 1.0}
    with pytest.raises(ValueError, match="config.data.weights has no 'b', which is in config.data.sources"):
        check_values(run)


@pytest.mark.parametrize(
    "name", ["log_every", "save_every", "validate_every", "patience", "data.workers", "question_balance"]
)
def test_0_may_mean_never(name):
    check_values(changed(name, 0))


@pytest.mark.parametrize("name", ["stage1_connector", "stage2_refiner", "stage3_sft", "mixed", "demo"])
def test_the_configurations_that_are_launched_pass(name):
    run = importlib.import_module(f"configs.{name}").get_config().to_dict()
    check({**run, "init_from": run["init_from"] or "before"})


def test_a_stage_that_follows_another_needs_a_start():
    run = default.get_config().to_dict()
    with pytest.raises(ValueError, match="stage sft follows .*, not random parameters"):
        check(run)
    check({**run, "init_from": "stage2"})


@pytest.mark.parametrize(
    ("wrong", "meant"), [("queston_balance", "question_balance"), ("row_tokens", "data.row_tokens"), ("stepz", "steps")]
)
def test_a_setting_that_does_not_exist_is_told_with_the_nearest(wrong, meant):
    run = default.get_config().to_dict()
    with pytest.raises(ValueError, match=f"^config.{wrong} is no setting, the nearest is '{meant}'$"):
        check_values({**run, wrong: 1})
