from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from launch.run_config import load, unknown_key

ROOT = Path(__file__).parents[2]
CONFIG = ConfigDict({"steps": 1, "data": {"row_tokens": 2, "sources": {}}, "mesh": {"fsdp": 0}})


@pytest.mark.parametrize("name", ["steps", "data.row_tokens", "data.sources", "data", "mesh.fsdp"])
def test_keys_that_exist_pass(name):
    assert unknown_key(CONFIG, name) is None


@pytest.mark.parametrize(
    ("name", "nearest"), [("stepz", "steps"), ("row_tokens", "data.row_tokens"), ("data.row_token", "data.row_tokens")]
)
def test_unknown_keys_get_the_nearest(name, nearest):
    assert unknown_key(CONFIG, name) == f"the configuration has no key {name!r}, the nearest is {nearest!r}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config=configs/demo.py:stage3", "--config.batch_row=3"],
            "no key 'batch_row', the nearest is 'batch_rows'",
        ),
        (["--config", "configs/nope.py"], "--config configs/nope.py: no such file"),
        (["--config", "docs/example/instances.json"], "docs/example/instances.json is no configuration, a Python file"),
        (["--config", "README.md"], "README.md is no configuration, a Python file with get_config (SyntaxError: "),
        ([], "error: --config is missing"),
        (["--config.steps=3"], "error: --config is missing; --config.steps=3 changes a configuration"),
        (["--config", "configs/demo.py:stage9"], "the demo has no stage 'stage9'"),
        (["--config=~/demo.py:stage1", "--config.batch_rows=many"], "flag --config.batch_rows=many: invalid literal"),
        (["--config=~/demo.py:stage1", "--num_processes=two"], "flag --num_processes=two: "),
    ],
)
def test_commands_end_with_one_sentence(tmp_path, arguments, message):
    done = subprocess.run(
        [sys.executable, "-m", "launch.train", "--workdir", str(tmp_path / "run"), *arguments],
        cwd=ROOT,
        env={**os.environ, "HOME": str(ROOT / "configs")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and message in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


DATA, VALIDATION = "--config.data.sources.warehouse.root=", "--config.validation_sources.warehouse.root="


@pytest.mark.parametrize("name", ["stage3_sft", "mixed"])
@pytest.mark.parametrize(
    ("arguments", "roots"),
    [
        ([], ("data/warehouse", "data/warehouse")),
        ([f"{DATA}/gcs/w"], ("/gcs/w", "/gcs/w")),
        ([f"{VALIDATION}/gcs/v"], ("data/warehouse", "/gcs/v")),
        ([f"{DATA}/gcs/w", f"{VALIDATION}/gcs/v"], ("/gcs/w", "/gcs/v")),
        ([f"{VALIDATION}/gcs/v", f"{DATA}/gcs/w"], ("/gcs/w", "/gcs/v")),
    ],
)
def test_stage_3_validates_on_the_warehouse_that_it_is_given(name, arguments, roots):
    run = load(str(ROOT / "configs" / f"{name}.py"), arguments).to_dict()
    sources = run["data"]["sources"], run["validation_sources"]
    assert tuple(source["warehouse"]["root"] for source in sources) == roots
    assert [source["warehouse"]["split"] for source in sources] == ["train", "val"]


def test_a_configuration_is_loaded_with_its_changes():
    config = load(
        str(ROOT / "configs" / "demo.py") + ":stage1",
        ["--config.steps=7", "--config.seed", "3", "--config.data.region_names", "--coordinator_address=a"],
    )
    assert (config.steps, config.seed, config.data.region_names) == (7, 3, True)
    assert config.stage == "connector_alignment"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.steps=abc", "config.steps=abc"),
        ("--config.nonsense=3", "no key 'nonsense'"),
        ("--noconfig.nonsense", "no key 'nonsense'"),
    ],
)
def test_what_a_configuration_cannot_hold_is_one_sentence(argument, message):
    with pytest.raises(ValueError, match=message) as error:
        load(str(ROOT / "configs" / "stage3_sft.py"), [argument])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("module", "command", "flag"),
    [("launch.train", "train", "--workdir"), ("launch.compile_for_tpu", "tpu-report", "--topology")],
)
def test_help_has_all_flags_and_ends_with_examples(module, command, flag):
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    settings, examples = done.stdout.split("\nsettings:\n")[1].split("\n\nexamples")
    assert f"smolrgpt {command} --config configs/stage3_sft.py" in examples and "--config.seed=0" in settings
    assert all(f"\n  {name}: " in done.stdout for name in ("--config", flag))
    assert "\n  --config.batch_rows=64: " in done.stdout
