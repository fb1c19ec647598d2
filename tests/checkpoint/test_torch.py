"""PyTorch folders: byte-exact round trips and one clear error for each kind of damage."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from smolrgpt_jax.checkpoint.mapping import INV_FREQ, entries
from smolrgpt_jax.checkpoint.safetensors_folder import TorchLayout, write_file
from smolrgpt_jax.checkpoint.torch import (
    config_from_torch,
    config_to_torch,
    default_layout,
    read_folder,
    torch_shapes,
    with_dtype,
    with_shards,
    write_folder,
)
from smolrgpt_jax.config import PRESETS
from smolrgpt_jax.errors import CheckpointError
from smolrgpt_jax.models.smolrgpt import abstract_params

HEAD, EMBEDDING = "decoder.head.weight", "decoder.token_embedding.weight"


@pytest.fixture
def folder(golden, tmp_path):
    """A copy of the golden checkpoint to damage, and its tensors."""
    copy = tmp_path / "checkpoint"
    shutil.copytree(golden.folder, copy)
    return copy


def rewrite(folder, change, metadata=None):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata=metadata)


def test_round_trip_is_byte_exact(golden, tmp_path):
    config, params, layout = read_folder(golden.folder)
    write_folder(tmp_path / "back", config, params, layout)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (golden.folder / name).read_bytes()


def test_a_layout_survives_json(golden):
    _, _, layout = read_folder(golden.folder)
    assert TorchLayout(**json.loads(json.dumps(asdict(layout)))) == layout


def test_the_default_layout_is_the_release_s(golden):
    """Names, order and tied-head metadata of a checkpoint that was never imported are those the release writes."""
    config, _, layout = read_folder(golden.folder)
    ours = default_layout(config)
    assert ours.files == layout.files
    assert ours.metadata == layout.metadata


@pytest.mark.parametrize(("dtype", "numpy_dtype"), [("BF16", ml_dtypes.bfloat16), ("F16", np.float16)])
def test_other_dtypes(golden, tmp_path, dtype, numpy_dtype):
    config, params, layout = read_folder(golden.folder)
    write_folder(tmp_path / "small", config, params, with_dtype(layout, dtype))
    tensors = load_file(tmp_path / "small" / "model.safetensors")
    assert {t.dtype for n, t in tensors.items() if n != INV_FREQ} == {np.dtype(numpy_dtype)}
    again = read_folder(tmp_path / "small")[1]
    np.testing.assert_array_equal(
        again["decoder/blocks/q_proj/kernel"], params["decoder/blocks/q_proj/kernel"].astype(numpy_dtype)
    )


@pytest.mark.parametrize("names", [[EMBEDDING], [HEAD], [HEAD, EMBEDDING]], ids=str)
def test_tied_head_under_either_name(golden, folder, names):
    def change(tensors):
        head = tensors.pop(HEAD)
        tensors.update({n: head for n in names})

    rewrite(folder, change)
    params = read_folder(folder)[1]
    np.testing.assert_array_equal(
        params["decoder/token_embedding"][:515], golden.model.params["decoder/token_embedding"][:515]
    )


def test_sharded_folder(golden, folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    files = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, members in files.items():
        save_file({n: tensors[n] for n in members}, folder / file, metadata={"format": "pt"})
    index = {
        "metadata": {"total_size": sum(t.nbytes for t in tensors.values())},
        "weight_map": {n: f for f, m in sorted(files.items()) for n in sorted(m)},
    }
    index["weight_map"] = dict(sorted(index["weight_map"].items()))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / "model.safetensors").unlink()
    config, params, layout = read_folder(folder)
    np.testing.assert_array_equal(params["rgb_connector/proj/kernel"], golden.model.params["rgb_connector/proj/kernel"])
    write_folder(tmp_path / "back", config, params, layout)
    for file in [*files, "model.safetensors.index.json"]:
        assert (tmp_path / "back" / file).read_bytes() == (folder / file).read_bytes()


def test_all_wrong_tensors_are_listed_at_once(folder):
    def change(tensors):
        del tensors["MP.proj.weight"], tensors["decoder.norm.weight"]
        tensors["surprise.weight"] = np.zeros(3, np.float32)
        tensors["MP_depth.proj.weight"] = np.zeros((96, 255), np.float32)

    rewrite(folder, change)
    with pytest.raises(CheckpointError) as error:
        read_folder(folder)
    for part in (
        "missing MP.proj.weight",
        "missing decoder.norm.weight",
        "unexpected surprise.weight",
        "MP_depth.proj.weight has shape [96, 255]",
    ):
        assert part in str(error.value)


def test_truncated_file(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="model.safetensors is not a readable safetensors file"):
        read_folder(folder)


def test_nan_weights_are_refused_unless_allowed(folder):
    def change(tensors):
        tensors["decoder.norm.weight"][3] = np.nan

    rewrite(folder, change)
    with pytest.raises(CheckpointError, match="decoder.norm.weight holds NaN"):
        dict(read_folder(folder)[1])
    assert np.isnan(read_folder(folder, allow_nan=True)[1]["decoder/norm/scale"][3])


def test_a_pickle_is_never_loaded(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pytorch_model.bin is a pickle"):
        read_folder(folder)


def test_untied_heads_in_a_tied_model(folder):
    def change(tensors):
        tensors[EMBEDDING] = tensors[HEAD].copy()
        tensors[EMBEDDING][3, 5] += 1.5

    rewrite(folder, change)
    with pytest.raises(
        CheckpointError, match=f"{HEAD} and {EMBEDDING} differ though config.json ties them, by up to 1.5"
    ):
        dict(read_folder(folder)[1])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("lm_re_base", 10000, "inv_freq contradicts lm_re_base"),
        ("vit_cls_flag", True, "vit_cls_flag=True is not supported"),
        ("mp_image_token_length", 64, "mp_image_token_length is 64 but the sizes give 16"),
        ("lm_hidden_dim", 128, "128 does not divide into 6 heads"),
        ("lm_n_blocks", 4, "missing decoder.blocks.3"),
    ],
)
def test_a_config_that_contradicts_the_tensors(folder, field, value, message):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, field: value}))
    with pytest.raises(CheckpointError, match=message):
        read_folder(folder)


def test_an_existing_destination_is_untouched(golden, tmp_path):
    config, params, layout = read_folder(golden.folder)
    (tmp_path / "there").mkdir()
    with pytest.raises(CheckpointError, match="exists already"):
        write_folder(tmp_path / "there", config, params, layout)
    assert list((tmp_path / "there").iterdir()) == []


def test_a_failed_write_leaves_nothing(golden, tmp_path, monkeypatch):
    config, params, layout = read_folder(golden.folder)

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(CheckpointError, match="No space left"):
        write_folder(tmp_path / "new", config, params, layout)
    assert list(tmp_path.iterdir()) == []


def test_the_table_covers_the_published_model():
    config = PRESETS["smolrgpt"]
    table = entries(config)
    trained = sum(int(np.prod(e.torch_shape)) for e in table)
    assert trained == 475_697_280
    assert {e.jax for e in table} == set(abstract_params(config))


def test_every_layout_rule_inverts():
    rng = np.random.default_rng(0)
    for entry in entries(PRESETS["demo"]):
        tensor = rng.random(entry.torch_shape, np.float32)
        there = entry.to_jax(tensor)
        assert there.shape == entry.jax_shape
        np.testing.assert_array_equal(entry.to_torch(there), tensor)


def test_config_json_round_trip_keeps_unknown_fields(golden):
    values = json.loads((golden.folder / "config.json").read_text()) | {"somebody's": ["field"]}
    assert config_to_torch(config_from_torch(values), values) == values


def test_config_json_with_missing_fields_means_the_published_model():
    assert config_from_torch({}) == PRESETS["smolrgpt"]


def test_layers_of_different_dtypes_come_back_as_they_were(folder, tmp_path):
    """One layer in bfloat16, one in float16: stacked in float32 meanwhile, no bit lost."""

    def change(tensors):
        for layer, dtype in ((0, ml_dtypes.bfloat16), (2, np.float16)):
            name = f"decoder.blocks.{layer}.mlp.up_proj.weight"
            tensors[name] = tensors[name].astype(dtype)
        tensors[HEAD] = tensors[HEAD].astype(ml_dtypes.bfloat16)

    rewrite(folder, change)
    config, params, layout = read_folder(folder)
    assert params["decoder/blocks/up_proj/kernel"].dtype == np.float32
    assert params["decoder/token_embedding"].dtype == ml_dtypes.bfloat16
    write_folder(tmp_path / "back", config, params, layout)
    assert (tmp_path / "back/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("names", [[EMBEDDING], [HEAD], [HEAD, EMBEDDING]], ids=str)
def test_tied_heads_come_back_under_their_names(folder, tmp_path, names):
    def change(tensors):
        head = tensors.pop(HEAD)
        tensors.update({n: head for n in names})

    rewrite(folder, change, metadata={"somebody's": "note", **{letter: letter for letter in "zebra"}})
    write_folder(tmp_path / "back", *read_folder(folder))
    assert (tmp_path / "back/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_an_older_config_without_fields_comes_back_without_them(folder, tmp_path):
    values = json.loads((folder / "config.json").read_text())
    for name in ("lm_attn_scaling", "lm_max_position_embeddings", "vit_cls_flag", "vlm_extra_tokens", "stage"):
        del values[name]
    values["new_field"] = {"kept": [1, None]}
    (folder / "config.json").write_text(json.dumps(values, indent=4))
    write_folder(tmp_path / "back", *read_folder(folder))
    assert (tmp_path / "back/config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_a_model_that_was_never_imported_is_written_as_the_release_would(golden, tmp_path):
    """config.json's fields, names, order, dtypes, metadata and the rotary buffer's bits are those of the golden folder."""
    new = tmp_path / "new"
    write_folder(new, golden.model.config, golden.model.params)
    assert (new / "model.safetensors").read_bytes() == (golden.folder / "model.safetensors").read_bytes()
    ours, theirs = (json.loads((f / "config.json").read_text()) for f in (new, golden.folder))
    assert list(ours) == list(theirs)
    assert ours == theirs


def test_shards_hold_at_most_their_size(golden):
    config, _, layout = read_folder(golden.folder)
    shapes = torch_shapes(config)
    cut = with_shards(layout, config, 300_000)
    sizes = [[4 * int(np.prod(shapes[n])) for n, _ in tensors] for tensors in cut.files.values()]
    assert all(sum(s) <= 300_000 or len(s) == 1 for s in sizes)
    assert [t for tensors in cut.files.values() for t in tensors] == layout.files["model.safetensors"]
    assert list(cut.files)[0] == f"model-00001-of-{len(sizes):05}.safetensors"
    # A tensor larger than a shard has one of its own.
    assert max(map(len, with_shards(layout, config, 1).files.values())) == 1
    assert with_shards(cut, config, 10**9).files == layout.files


def test_another_dtype_changes_the_index_s_total(folder, tmp_path):
    config, params, layout = read_folder(folder)
    write_folder(tmp_path / "cut", config, params, with_shards(layout, config, 1_000_000))
    config, params, layout = read_folder(tmp_path / "cut")
    layout.index_metadata["note"] = "kept"
    write_folder(tmp_path / "half", config, params, with_dtype(layout, "BF16"))
    index = json.loads((tmp_path / "half/model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 2 * 677_952 + 4 * 8, "note": "kept"}


def test_values_too_large_for_a_dtype_are_refused(golden, tmp_path):
    config, params, layout = read_folder(golden.folder)
    params = {**params, "decoder/norm/scale": np.full(96, 7e4, np.float32)}
    with pytest.raises(CheckpointError, match="decoder.norm.weight holds a value too large for F16"):
        write_folder(tmp_path / "small", config, params, with_dtype(layout, "F16"))
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_must_fill_its_place(tmp_path):
    with pytest.raises(ValueError, match="a has 4 bytes, its place has 8"):
        with write_file(tmp_path / "file", [("a", "F32", (2,))], None) as write:
            write("a", np.zeros(1, np.float32))
    with pytest.raises(ValueError, match="never written: a"):
        with write_file(tmp_path / "file", [("a", "F32", (2,))], None):
            pass
