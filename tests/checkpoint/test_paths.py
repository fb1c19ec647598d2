"""Every name that the file system takes is a checkpoint's, and every way of typing its path is read."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from smolrgpt_jax.checkpoint import orbax
from smolrgpt_jax.checkpoint.load import Checkpoint, read_checkpoint
from smolrgpt_jax.checkpoint.torch import write_folder
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.errors import CheckpointError, DataError
from smolrgpt_jax.export import folder as export
from smolrgpt_jax.export.runner import PARAMETERS, ExportedModel
from smolrgpt_jax.files import as_path
from smolrgpt_jax.router.classify import load_router
from smolrgpt_jax.router.hf_folder import longformer_config_values, write_longformer
from smolrgpt_jax.router.longformer import LongformerConfig, abstract_params
from tests.conftest import DATA_FILES

TOKENIZER = DATA_FILES / "text" / "tokenizer"
SMALL = LongformerConfig(("mcq",), vocab_size=800, positions=66, width=8, heads=1, layers=1, mlp_width=8, window=8)
# The first two are one in a URL, of whose path nothing behind "#" or "?" is a part.
NAMES = ("a b", "a%20b", "run#1", "why?", "a|[1]*", "~gr\u00f6\u00dfe")
# A path of a name, as it may be typed in the folder that holds it; a link leads elsewhere.
TYPED = ("{name}", "~/{name}", "sub/../{name}", "link/../../{name}", "link/../back/{name}")
NAME = "decoder/norm/scale"


def write_step(folder, config, params):
    saver = orbax.TrainingCheckpoints(folder, keep=1)
    saver.save(
        3, {name: jnp.asarray(array) for name, array in params.items()}, {"count": jnp.zeros(())}, orbax.Meta(config)
    )
    saver.close()


def write_router(folder, config, params):
    arrays = {name: np.full(shape.shape, params[NAME][0]) for name, shape in abstract_params(SMALL).items()}
    tokenizer = {"tokenizer.json": (TOKENIZER / "tokenizer.json").read_text()}
    write_longformer(folder, SMALL, arrays, longformer_config_values(SMALL), tokenizer)


def write_export(folder, config, params):
    export.write_export(Checkpoint(config, params, ChatTokenizer.load(TOKENIZER)), folder)


def read_params(path):
    return read_checkpoint(path).params[NAME]


KINDS = {
    "PyTorch folder": (write_folder, read_params),
    "converted": (lambda folder, *model: orbax.save(folder, model[1], orbax.Meta(model[0])), read_params),
    "work directory": (write_step, read_params),
    "exported": (write_export, lambda path: load_file(ExportedModel(as_path(path)).folder / PARAMETERS)[NAME]),
    "router": (write_router, lambda path: load_router(path)._params["head_out/bias"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_of_any_name_is_read_however_its_path_is_typed(golden, tmp_path, monkeypatch, kind):
    write, read = KINDS[kind]
    home = tmp_path / "home"
    (home / "sub" / "deep").mkdir(parents=True)
    (home / "link").symlink_to(home / "sub" / "deep")
    (home / "sub" / "back").symlink_to(home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    monkeypatch.setattr(export, "export_programs", lambda *_: {})
    values = {name: np.float32(number) for number, name in enumerate(NAMES)}
    for name, value in values.items():
        params = golden.model.params[NAME] * 0 + value
        write(f"./{name}", golden.model.config, {**golden.model.params, NAME: params})
    assert {path.name for path in home.iterdir()} == {*NAMES, "sub", "link"}
    for number, (name, value) in enumerate(values.items()):
        typed = "./{name}" if name.startswith("~") else TYPED[number]
        assert float(np.asarray(read(typed.format(name=name)))[0]) == value, typed


@pytest.mark.parametrize("name", ["a\\b", "b\udce4d", "gs:"])
def test_a_name_by_which_arrays_would_go_elsewhere_is_refused_before_anything_is_written(golden, tmp_path, name):
    writes = (KINDS["converted"][0], write_step, lambda folder, *_: orbax.find_checkpoint(folder))
    for write in writes:
        with pytest.raises(CheckpointError, match="cannot hold a checkpoint"):
            write(tmp_path / name / "run", golden.model.config, golden.model.params)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "typed, expected",
    [
        ("~", "home"),
        ("~/a", "home/a"),
        ("./~", "here/~"),
        ("~nobody-of-this-name/a", "here/~nobody-of-this-name/a"),
        ("../x/..", ""),
        ("link/../a", "a"),
        ("link/a", "here/link/a"),
        ("a//b/./c", "here/a/b/c"),
    ],
)
def test_what_is_typed_is_one_path_also_when_it_is_asked_about_again(tmp_path, monkeypatch, typed, expected):
    (tmp_path / "here").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "other")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    assert as_path(typed).absolute() == tmp_path / expected
    assert as_path(as_path(typed)) == as_path(typed)
    assert isinstance(as_path(Path(typed)), Path)


@pytest.mark.parametrize("typed, message", [("", "--out '' is no path"), ("a\0b", "no path"), ("s3://a/b", "is a URL")])
def test_what_names_no_file_is_refused(typed, message):
    with pytest.raises(DataError, match=message):
        as_path(typed, "--out")
