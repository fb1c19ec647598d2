"""What an exported folder holds: platforms, manifest, parameters; and what cannot be exported."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import jax.export
import numpy as np
import pytest
from safetensors.numpy import load_file

import smolrgpt_jax.export.folder
from launch.export import main
from smolrgpt_jax.data.chat import FORMAT_FILE, ChatTokenizer
from smolrgpt_jax.export.folder import write_export
from smolrgpt_jax.export.programs import PLATFORMS, ExportSettings, export_programs, make_programs, stored_dtype

PROGRAMS = ("encode", "encode_rgb", "prefill", "decode")


def manifest_of(folder) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def read(folder, name) -> jax.export.Exported:
    return jax.export.deserialize(bytearray((folder / f"{name}.jax_export").read_bytes()))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_lowered_for_every_platform_and_described(exported, name):
    program, described = read(exported, name), manifest_of(exported)["programs"][name]
    assert program.platforms == PLATFORMS == tuple(described["platforms"])
    (params, inputs), keywords = jax.tree.unflatten(program.in_tree, program.in_avals)
    assert not keywords and set(inputs) == set(described["inputs"])
    for key, value in inputs.items():
        assert described["inputs"][key] == {
            "shape": [size if isinstance(size, int) else "b" for size in value.shape],
            "dtype": str(value.dtype),
        }
    assert {key.split("/")[0] for key in params} == set(described["parameters"])


def test_decoding_needs_the_decoder_alone_and_rgb_no_refiner(exported):
    programs = manifest_of(exported)["programs"]
    assert programs["prefill"]["parameters"] == programs["decode"]["parameters"] == ["decoder"]
    assert programs["encode_rgb"]["parameters"] == ["rgb_connector", "vision_encoder"]


def test_parameters_lie_beside_the_programs(exported, model):
    stored = load_file(exported / "parameters.safetensors")
    assert stored.keys() == model.params.keys()
    for name, value in model.params.items():
        np.testing.assert_array_equal(stored[name], value)
    programs = sum((exported / f"{name}.jax_export").stat().st_size for name in PROGRAMS)
    assert programs < (exported / "parameters.safetensors").stat().st_size / 10


def test_the_manifest_names_tokens_and_sizes(exported, model, small_tokenizer):
    found = manifest_of(exported)
    assert found["jax"] == jax.__version__
    assert found["token_ids"] == {"image": 512, "mask_rgb": 513, "mask_depth": 514, "eos": 2, "pad": 2}
    assert (found["image_tokens"], found["image_size"], found["mask_grid"]) == (16, 64, 32)
    read_back = ChatTokenizer.load(exported / "tokenizer")
    asked = small_tokenizer.question("abc <mask> def")[0]
    np.testing.assert_array_equal(read_back.question("abc <mask> def")[0], asked)


def test_bfloat16_parameters_give_the_same_bits_as_float32_ones_cast_when_used(model):
    settings = ExportSettings(prompt_tokens=40, regions=2, new_tokens=4, dtype="bfloat16")
    program = make_programs(model.config, settings)["prefill"]
    rng = np.random.default_rng(0)
    inputs = {
        "input_ids": rng.integers(3, 500, (2, 40)),
        "attention_mask": np.ones((2, 40), np.int32),
        "feature_index": np.full((2, 40), -1),
        "features": jax.numpy.asarray(rng.normal(size=(2, 20, 96)), jax.numpy.bfloat16),
    }
    params = {name: value for name, value in model.params.items() if name.startswith("decoder/")}
    rounded = {name: value.astype(stored_dtype(name, "bfloat16", model.params)) for name, value in params.items()}
    assert {str(value.dtype) for value in rounded.values()} == {"bfloat16", "float32"}
    given, expected = (jax.jit(program.function)(p, inputs)["logits"] for p in (rounded, params))
    np.testing.assert_array_equal(given, expected)


def test_a_float32_export_asks_for_exact_products(model):
    settings = ExportSettings(prompt_tokens=40, regions=0, new_tokens=4)
    with jax.default_matmul_precision("default"):
        exact = export_programs(model.config, settings, model.tokenizer)["decode"].mlir_module()
        rounded = export_programs(model.config, dataclasses.replace(settings, dtype="bfloat16"), model.tokenizer)[
            "decode"
        ].mlir_module()
    products = [line for line in exact.splitlines() if "stablehlo.dot_general" in line]
    assert products and all("HIGHEST" in line for line in products)
    assert "HIGHEST" not in rounded


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"platforms": ("cpu", "rocm")}, "there is no platform 'rocm', choose from cpu, cuda, tpu"),
        ({"platforms": ()}, "no platform is given"),
        ({"batch": 0}, "batch is 0, must be at least 1"),
        ({"regions": -1}, "regions is -1"),
        ({"new_tokens": 0}, "new_tokens is 0"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
        ({"prompt_tokens": 20}, "prompts of 20 tokens are too short"),
        ({"prompt_tokens": 8100}, "8100 prompt tokens and 120 new ones exceed the model's 8192 positions"),
    ],
)
def test_bad_settings_are_refused_and_nothing_is_written(model, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        write_export(model, tmp_path / "new" / "out", dataclasses.replace(ExportSettings(), **changes))
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_tokenizer_is_refused(golden, tmp_path):
    with pytest.raises(ValueError, match="brings no tokenizer"):
        write_export(golden.model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_exports_with_a_tokenizer_from_elsewhere(golden, small_tokenizer, tmp_path, capsys):
    small_tokenizer.save(tmp_path / "tokenizer")
    main(
        ["--checkpoint", str(golden.folder), "--out", str(tmp_path / "out"), "--platforms", "cpu,tpu"]
        + ["--tokenizer", str(tmp_path / "tokenizer"), "--batch", "2", "--regions", "0", "--dtype", "bfloat16"]
    )
    assert "prompts of up to 96 tokens" in capsys.readouterr().out
    found = manifest_of(tmp_path / "out")
    assert found["platforms"] == ["cpu", "tpu"] and found["batch"] == 2 and "encode" not in found["programs"]
    assert read(tmp_path / "out", "prefill").platforms == ("cpu", "tpu")
    assert found["programs"]["decode"]["inputs"]["token"] == {"shape": [2], "dtype": "int32"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tokenizer"]


def test_answers_are_as_long_as_the_checkpoint_was_trained_for(golden, small_tokenizer, tmp_path, monkeypatch):
    folder = tmp_path / "torch"
    shutil.copytree(golden.folder, folder)
    small_tokenizer.save(folder)
    asked = []

    def export(model, out, settings, on_program):
        asked.append(settings.new_tokens)
        out.mkdir()

    monkeypatch.setattr(smolrgpt_jax.export.folder, "write_export", export)
    main(["--checkpoint", str(folder), "--out", str(tmp_path / "1")])
    (folder / FORMAT_FILE).write_text('{"answer_tokens": 9}')
    main(["--checkpoint", str(folder), "--out", str(tmp_path / "2")])
    main(["--checkpoint", str(folder), "--out", str(tmp_path / "3"), "--new_tokens", "7"])
    assert asked == [120, 9, 7]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "brings no tokenizer, give the folder of one with --tokenizer"),
        (["--tokenizer", "{tmp}/none"], "there is no such folder"),
        (["--tokenizer", "{tokenizer}", "--platforms", "cpu,gpu"], "there is no platform 'gpu'"),
        (["--tokenizer", "{tokenizer}", "--prompt_tokens", "0"], "prompts of 0 tokens are too short"),
        (["--tokenizer", "configs/demo_tokenizer"], "the tokenizer has 640 tokens, the model 515"),
        (["--checkpoint", "{tmp}/none"], "no such checkpoint"),
        (["--out", "{tokenizer}"], "exists already"),
    ],
)
def test_bad_input_of_the_command_line_is_one_sentence(exported, golden, tmp_path, arguments, message):
    places = {"tmp": tmp_path, "tokenizer": exported / "tokenizer"}
    start = ["--checkpoint", str(golden.folder), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        main([*start, *(argument.format(**places) for argument in arguments)])
    assert str(stop.value).startswith("error: ") and message in str(stop.value)
    assert "\n" not in str(stop.value) and list(tmp_path.iterdir()) == []
