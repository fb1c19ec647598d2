"""Settings that somebody got wrong: a run is as they say, or is refused in a sentence before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import demo
from smolrgpt_jax.config import PRESETS, misfit
from smolrgpt_jax.errors import told
from smolrgpt_jax.training import run as loop
from smolrgpt_jax.training.settings import SETTINGS, flat
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse
from tests.mutations import TEXTS, VALUES, broken, numbers_of_examples, reproducible
from tests.training.test_run import TINY, run_config


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    sizes = {"scenes": 2, "val_scenes": 1, "test_scenes": 1, "width": 96, "height": 54, "max_pallets": 4}
    folder = tmp_path_factory.mktemp("settings") / "data"
    make_warehouse(folder, WarehouseConfig(**sizes), workers=1)
    return folder


@st.composite
def with_unknown(draw, run):
    """The settings with one more, in one of the sections."""
    section = draw(st.sampled_from(["", "data", "optimizer", "mesh"]))
    added = {draw(TEXTS): draw(VALUES)}
    return {**run, section: {**run[section], **added}} if section else {**run, **added}


class Accepted(BaseException):
    """Raised where a run would begin, with what it has read."""


@numbers_of_examples(few=10)
def test_a_run_is_as_its_settings_say_or_is_refused(data, tmp_path, monkeypatch, examples):
    def offline(*_, **__):
        raise ConnectionError("no network")

    def begin(run, data):
        raise Accepted(run)

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    monkeypatch.setattr(loop, "_initial_state", begin)
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    valid = loop.plain(run_config(data)) | {"tokenizer": str(Path(demo.TOKENIZER).absolute())}

    @reproducible(examples)
    @given(st.one_of(broken(valid, most=1), with_unknown(valid)))
    def one_change(changed):
        try:
            with told():
                loop.train(changed, tmp_path / "run")
        except SystemExit as stop:
            assert str(stop).startswith("error: ") and "\n" not in str(stop)
            assert not list(tmp_path.iterdir())
        except Accepted as accepted:
            assert accepted.args[0].settings == loop.plain(changed)
            assert not any(misfit(value, SETTINGS[name].default) for name, value in flat(changed).items())
            shutil.rmtree(tmp_path / "run")

    monkeypatch.chdir(tmp_path)
    one_change()
