"""Steps of a training: nothing that is not finite, damage found and gone around, on the disk before it has its name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smolrgpt_jax import sharding
from smolrgpt_jax.checkpoint import orbax
from smolrgpt_jax.checkpoint.fingerprint import fingerprint
from smolrgpt_jax.checkpoint.orbax import Meta, NotFinite, TrainingCheckpoints
from smolrgpt_jax.config import PRESETS
from smolrgpt_jax.errors import CheckpointError

PLACE = sharding.replicated(sharding.make_mesh(devices=jax.devices()[:1]))


def state(step: int):
    noise = np.random.default_rng(step).normal(size=(64, 64)).astype(np.float32)
    params = {"weights": jax.device_put(noise, PLACE)}
    return params, {"count": jax.device_put(jnp.int32(step), PLACE), "mean": jax.device_put(noise + 1, PLACE)}


def said(step: int, **more) -> Meta:
    run = {"step": step, "run": {"seed": 0}, "data": {"next_index": step}, **more}
    return Meta(PRESETS["demo"], {"tokenizer.json": "{}"}, run=run)


def save(folder, step: int, params=None, opt_state=None) -> None:
    saver, (usual, usual_state) = TrainingCheckpoints(folder, keep=9), state(step)
    saver.save(step, params or usual, opt_state or usual_state, said(step))
    saver.close()


def newest(folder):
    return TrainingCheckpoints(folder, keep=9).newest(jax.tree.map(jnp.zeros_like, state(0)))


@pytest.fixture
def two_steps(tmp_path):
    for step in (1, 2):
        save(tmp_path, step)
    return tmp_path


def largest(folder):
    return max((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def rewrite(file, change) -> None:
    file.write_bytes(change(file.read_bytes()))


def resay(step, change) -> None:
    """Rewrites what a step says of its run."""
    values = json.loads((step / orbax.META_FILE).read_text())
    change(values["run"])
    (step / orbax.META_FILE).write_text(json.dumps(values))


def zeros_in_the_middle(data: bytes) -> bytes:
    half = len(data) // 2
    return data[:half] + bytes(64) + data[half + 64 :]


DAMAGES = {
    "cut short": lambda step: rewrite(largest(step / "params"), lambda data: data[: len(data) // 2]),
    "lost": lambda step: largest(step / "opt_state").unlink(),
    "zeros among random numbers": lambda step: rewrite(largest(step / "params"), zeros_in_the_middle),
    "no meta": lambda step: (step / orbax.META_FILE).unlink(),
    "empty meta": lambda step: (step / orbax.META_FILE).write_bytes(b""),
    "NUL bytes for a meta": lambda step: rewrite(step / orbax.META_FILE, lambda data: bytes(len(data))),
    "no step": lambda step: resay(step, lambda run: run.pop("step")),
    "another step": lambda step: resay(step, lambda run: run.update(step=1)),
    "no settings": lambda step: resay(step, lambda run: run.pop("run")),
    "no place in the data": lambda step: resay(step, lambda run: run.update(data=None)),
    "a place before the data": lambda step: resay(step, lambda run: run.update(data={"next_index": -1})),
    "facts that are a list": lambda step: resay(step, lambda run: run.update(facts=[1])),
    "a metric that is a text": lambda step: resay(step, lambda run: run.update(metrics={"loss": "low"})),
    "a best step that is a list": lambda step: resay(step, lambda run: run.update(selection={"best_step": []})),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_is_kept_aside_and_the_one_before_is_taken(two_steps, damage, capsys):
    folder = two_steps / "checkpoints"
    DAMAGES[damage](folder / "2")
    meta, (params, opt_state) = newest(two_steps)
    assert meta.run["step"] == 1 and int(opt_state["count"]) == 1
    np.testing.assert_array_equal(params["weights"], state(1)[0]["weights"])
    (aside,) = folder.glob("2.damaged-*")
    printed = capsys.readouterr().out
    assert f"{folder / '2'} is damaged" in printed and f"it is kept as {aside}" in printed
    save(two_steps, 2)
    assert newest(two_steps)[0].run["step"] == 2 and aside.exists()


def test_what_has_a_number_for_its_name_and_is_no_step_is_left_alone(two_steps):
    folder = two_steps / "checkpoints"
    (folder / "9").write_text("a file")
    (folder / "\u00b2").mkdir()
    assert newest(two_steps)[0].run["step"] == 2 and orbax.find_checkpoint(two_steps).name == "2"
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "9", "\u00b2"]


def test_where_no_step_is_good_all_stay(two_steps):
    for step in ("1", "2"):
        DAMAGES["cut short"](two_steps / "checkpoints" / step)
    with pytest.raises(
        CheckpointError, match="no checkpoint under .* is good; move them away to begin anew: .*/2 is damaged"
    ):
        newest(two_steps)
    assert sorted(path.name for path in (two_steps / "checkpoints").iterdir()) == ["1", "2"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_neither_saved_nor_taken(two_steps, monkeypatch, value, capsys):
    params, opt_state = state(3)
    broken = opt_state | {"mean": opt_state["mean"].at[5, 7].set(value)}
    with pytest.raises(NotFinite, match="optimiser state .*mean.* hold NaN or infinity"):
        save(two_steps, 3, params, broken)
    assert not (two_steps / "checkpoints" / "3").exists()
    # As a release that did not look may have saved it.
    with monkeypatch.context() as patch:
        patch.setattr(TrainingCheckpoints, "fingerprint", lambda *_: "")
        save(two_steps, 3, params, broken)
    assert newest(two_steps)[0].run["step"] == 2
    assert "hold NaN or infinity; it is kept as" in capsys.readouterr().out


def test_a_step_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, rename = set(), os.rename
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.add(os.fstat(file).st_ino), fsync(file))[1])
    missing = []

    def rename_once_synced(source, target, **options):
        if Path(target) == tmp_path / "checkpoints" / "1":
            missing.extend(path.name for path in Path(source).rglob("*") if path.stat().st_ino not in synced)
        rename(source, target, **options)

    monkeypatch.setattr(os, "rename", rename_once_synced)
    save(tmp_path, 1)
    # Orbax's own notes, which nobody reads, come last.
    assert "commit_success.txt" in missing and set(missing) <= {"_CHECKPOINT_METADATA", "commit_success.txt"}


def test_of_a_step_that_is_there_what_it_says_is_written_anew(two_steps):
    saver = TrainingCheckpoints(two_steps, keep=9)
    saver.save(2, *state(2), said(2, selection={"best_step": 2}))
    saver.close()
    assert newest(two_steps)[0].run["selection"] == {"best_step": 2}
    assert orbax.find_checkpoint(two_steps / "best").name == "2"


def test_the_fingerprint_sees_places_and_what_is_not_finite():
    values = jnp.arange(24.0).reshape(2, 3, 4)
    swapped = values.at[1, 2, 3].set(values[0, 0, 1]).at[0, 0, 1].set(values[1, 2, 3])
    others = [{"a": swapped}, {"b": values}, {"a": -values}, {"a": values.reshape(2, 12)}]
    assert len({fingerprint(arrays | {"count": jnp.int32(3)})[0] for arrays in ({"a": values}, *others)}) == 5
    assert fingerprint({"a": values.at[0, 1, 1].set(jnp.nan), "b": values})[1] == ["a"]


@pytest.mark.parametrize("shape", [(), (7,), (0, 3), (3, 4, 5)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint32"])
def test_the_host_and_a_program_find_the_same_fingerprint(shape, dtype, monkeypatch):
    values = jnp.asarray(5 * np.random.default_rng(0).normal(size=shape)).astype(dtype)
    found = fingerprint({"a": values})
    monkeypatch.setattr("smolrgpt_jax.checkpoint.fingerprint.SMALL", 0)
    assert fingerprint({"a": values}) == found
