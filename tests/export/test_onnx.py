"""The export to ONNX: its programs against PyTorch and our own, its runner in a process of its own, and bad input."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from eval.answering.one_picture import answer
from launch.export import main as export
from smolrgpt_jax.config import DecoderConfig, SmolRGPTConfig, VisionConfig
from smolrgpt_jax.export.exported import answer as runner_answer
from smolrgpt_jax.export.onnx_decoder import write_decoder
from smolrgpt_jax.export.onnx_folder import OnnxSettings, write_onnx_export
from smolrgpt_jax.export.onnx_graph import Graph, Quant
from smolrgpt_jax.export.onnx_runner import Decoder, ExportedModel, main
from smolrgpt_jax.models.attention import packed_attention_mask
from smolrgpt_jax.models.smolrgpt import bind, init_params

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

TINY_VISION = VisionConfig(width=32, mlp_width=32, heads=2, layers=1, patch_size=8, image_size=32)
# Arguments: the exported folder, the folder of the golden files, the file to write. Answers the golden prompts, with and without regions.
PROGRAM = """
import sys

for name in ("smolrgpt_jax", "jax", "jaxlib", "torch", "safetensors", "transformers"):
    sys.modules[name] = None  # importing it raises ImportError, wherever it may lie
folder, golden, out = sys.argv[1:]
sys.path.insert(0, folder)
import numpy as np
from run import ExportedModel

inputs, outputs = np.load(f"{golden}/inputs.npz"), np.load(f"{golden}/outputs.npz")
images, depths = (inputs[name].transpose(0, 2, 3, 1) for name in ("image", "depth"))
masks = [inputs[f"mask_{row}"] for row in range(len(images))]
model = ExportedModel(folder)
np.save(out, model.generate(outputs["prompt_ids"], outputs["prompt_attention_mask"], images, depths, masks))
"""


def prompts(golden) -> list:
    given = golden.outputs["prompt_ids"], golden.outputs["prompt_attention_mask"]
    return [*given, golden.images, golden.depths, golden.masks]


def test_greedy_tokens_equal_pytorch_where_neither_jax_nor_torch_can_be_imported(
    exported_onnx, golden, tmp_path, site_packages
):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(exported_onnx), str(golden.folder.parent), str(tmp_path / "ids.npy")],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": site_packages},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "ids.npy"), golden.outputs["greedy_ids"])


@pytest.fixture
def site_packages() -> str:
    """Where onnxruntime lies."""
    return os.path.dirname(os.path.dirname(onnxruntime.__file__))


def last_logits(model: ExportedModel, golden, monkeypatch) -> np.ndarray:
    """Of the golden prompts: float32[B, V]."""
    found, read = [], model._decoder.read

    def keep(*arguments):
        found.append(read(*arguments).copy())
        return found[-1]

    monkeypatch.setattr(model._decoder, "read", keep)
    model.generate(*prompts(golden), max_new_tokens=1)
    return np.stack(found)


# Shares of the largest logit. Random weights spread what rounding does to them; trained ones give the demo's answers.
@pytest.mark.parametrize(("quant", "bound"), [(None, 1e-5), ("int8", 0.05), ("int4", 0.6)])
def test_logits_of_prompts_are_within_bounds(model, golden, tmp_path, monkeypatch, quant, bound):
    write_onnx_export(model, tmp_path / "out", OnnxSettings(96, 24, quant))
    found = last_logits(ExportedModel(tmp_path / "out", threads=1), golden, monkeypatch)
    ids, attended, images, depths, masks = prompts(golden)
    expected = model.forward(ids, attended, images, depths, masks)["logits"][:, -1]
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert bound / 100 < difference <= bound if quant else difference <= bound


@pytest.mark.parametrize("tied", [False, True])
def test_a_decoder_alone_reads_in_pieces_what_ours_reads_at_once(tmp_path, tied):
    sizes = {"width": 64, "mlp_width": 96, "heads": 4, "kv_heads": 2, "layers": 2, "vocab_size": 50}
    config = SmolRGPTConfig(TINY_VISION, DecoderConfig(**sizes, rope_scale=1.5, tied_head=tied))
    params = init_params(config, jax.random.key(0))
    with Graph(tmp_path / "alone.onnx") as graph:
        write_decoder(graph, config.decoder, params, positions=16)
    session = onnxruntime.InferenceSession(str(tmp_path / "alone.onnx"), providers=["CPUExecutionProvider"])
    reader, ids = Decoder(session, 16), np.random.default_rng(0).integers(0, 50, 12)
    found = [reader.read(ids[begin:end], begin).copy() for begin, end in ((0, 5), (5, 6), (6, 9), (9, 12))]
    whole = np.ones((1, 12), np.int32)
    decoder = bind(config, params).decoder
    hidden, _ = decoder(decoder.embed(ids[None]), np.arange(12)[None], packed_attention_mask(whole, 0 * whole))
    expected = decoder.logits(hidden)[0, [4, 5, 8, 11], :50]
    np.testing.assert_allclose(found, expected, atol=1e-4 * abs(expected).max())


@pytest.mark.parametrize("quant", [Quant(8, 32), Quant(4, 32), Quant(4, 16)])
@pytest.mark.parametrize("columns", [48, 64])
def test_a_stored_number_is_within_half_a_step(quant, columns):
    rows = np.random.default_rng(0).normal(size=(3, columns)).astype(np.float32)
    rows[1], rows[2] = 0, rows[2] + 9
    codes, scales, *zeros = quant.codes(rows)
    if quant.bits == 4:
        codes, zeros = (np.stack([a & 15, a >> 4], axis=-1).reshape(3, -1) for a in (codes, *zeros))
        zeros = zeros[:, : scales.shape[1]]
    else:
        zeros = np.full(scales.shape, 128)
    steps = np.repeat(scales, quant.block, axis=1)
    stored = (codes.astype(float) - np.repeat(zeros, quant.block, axis=1)) * steps
    filled = np.pad(rows, ((0, 0), (0, stored.shape[1] - columns)))
    assert (abs(stored - filled) <= steps * 0.5001).all()


def test_a_picture_is_looked_at_once_and_its_beginning_is_read_once(exported_onnx, golden, monkeypatch):
    model = ExportedModel(exported_onnx, threads=1)
    asked = [model.prompt(text) for text in ("abc <mask>", "def <mask>", "gh")]
    length = max(map(len, asked))
    ids = np.stack([np.pad(prompt, (length - len(prompt), 0)) for prompt in asked])
    attended = (np.arange(length) >= length - np.array([[len(prompt)] for prompt in asked])).astype(np.int32)
    masks = [golden.masks[0][..., :1]] * 3
    pictures = (golden.images[[0, 0, 0]], golden.depths[[0, 0, 0]], masks)
    alone = [
        ExportedModel(exported_onnx).generate(ids[i : i + 1], attended[i : i + 1], *(p[i : i + 1] for p in pictures))
        for i in range(3)
    ]
    looked, read, encode, reads = [], [], model._programs["encode"], model._decoder.read
    monkeypatch.setitem(
        model._programs, "encode", SimpleNamespace(run=lambda *given: looked.append(1) or encode.run(*given))
    )
    monkeypatch.setattr(model._decoder, "read", lambda ids, *given: read.append(len(ids)) or reads(ids, *given))
    found = model.generate(ids, attended, *pictures)
    np.testing.assert_array_equal(found, np.concatenate(alone))
    assert len(looked) == 1
    beginning = int(np.flatnonzero(asked[0] == 512)[-1]) + 1
    assert [n for n in read if n > 1] == [len(asked[0]), *(len(prompt) - beginning for prompt in asked[1:])]
    other = model.generate(ids[:1], attended[:1], golden.images[1:2], golden.depths[1:2], masks[:1])
    assert len(looked) == 2 and read.count(len(asked[0])) == 2 and (other != found[:1]).any()


def test_the_command_line_answers_every_question_as_the_library_does(exported_onnx, model, data_files, capsys):
    folder = data_files / "real_warehouse" / "val"
    image, depth = folder / "images" / "000315.png", folder / "depths" / "000315_depth.png"
    questions, boxes = (
        ["far is bcdefgab <mask> from <mask>", "<mask> or <mask>", "what"],
        ["200,300,700,620", "900,300,1300,700"],
    )
    main(
        ["--model", str(exported_onnx), "--image", str(image), "--depth", str(depth), "--boxes", *boxes]
        + ["--question", questions[0], "--also", *questions[1:]]
    )
    corners = [[float(part) for part in box.split(",")] for box in boxes]
    regions = [{"depth": depth, "boxes": corners}, {"depth": depth, "boxes": corners}, {}]
    expected = [answer(model, image, q, **how, max_new_tokens=24).text for q, how in zip(questions, regions)]
    printed = capsys.readouterr()
    assert printed.out == "".join(f"{text}\n" for text in expected) and all(expected)
    assert printed.err.count("cut off after 24 tokens") == 3
    found = runner_answer(ExportedModel(exported_onnx), image, questions[0], depth=depth, boxes=corners)
    assert found == expected[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--question", "is it?", "--also", "is <mask>?"], "1 <mask> but 0 masks"),
        (["--question", "is <mask>?"], "1 <mask> but 0 masks"),
        (["--question", "what? " * 100], "prompt tokens, the model was exported for 96"),
        (["--question", "what?", "--model", "{damaged}"], "decoder.data is not the file that was exported"),
        (["--question", "what?", "--model", "{other}"], "has the format 'smolrgpt_jax export 2', this program reads"),
    ],
)
def test_bad_input_of_the_runner_is_one_sentence(exported, exported_onnx, data_files, tmp_path, arguments, message):
    damaged = shutil.copytree(exported_onnx, tmp_path / "damaged")
    with open(damaged / "decoder.data", "r+b") as file:
        file.write(b"other")
    image = data_files / "real_warehouse" / "val" / "images" / "000315.png"
    given = [argument.format(damaged=damaged, other=exported) for argument in arguments]
    with pytest.raises(SystemExit) as stop:
        main(["--model", str(exported_onnx), "--image", str(image), *given])
    assert str(stop.value).startswith("error: ") and message in str(stop.value) and "\n" not in str(stop.value)


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("onnx", lambda model, folder, out: write_onnx_export(model, out)),
        ("onnxruntime", lambda model, folder, out: ExportedModel(folder)),
    ],
)
def test_a_missing_package_is_named(exported_onnx, model, tmp_path, monkeypatch, package, call):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"needs the package {package}: pip install"):
        call(model, exported_onnx, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_command_names_it_before_it_reads_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    arguments = ["--checkpoint", str(tmp_path / "nothing"), "--runtime", "onnx", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="needs the package onnx: pip install"):
        export(arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("decoder", "settings", "message"),
    [
        ({}, {"quant": "int2"}, "quant is 'int2', must be int8 or int4"),
        ({}, {"new_tokens": 0}, "new_tokens is 0"),
        ({}, {"prompt_tokens": 20}, "prompts of 20 tokens are too short"),
        ({"heads": 12, "kv_heads": 4}, {}, "onnxruntime takes heads of a multiple of 16 numbers, not of 8"),
        (
            {"width": 80, "heads": 5, "kv_heads": 5},
            {"quant": "int8"},
            "int8 takes widths of a multiple of 32, not of 80",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_is_written(model, tmp_path, decoder, settings, message):
    sizes = dataclasses.replace(model.config.decoder, **decoder)
    other = dataclasses.replace(model, config=model.config.replace(decoder=sizes))
    with pytest.raises(ValueError, match=message):
        write_onnx_export(other, tmp_path / "new" / "out", dataclasses.replace(OnnxSettings(), **settings))
    assert list(tmp_path.iterdir()) == []


def test_the_command_exports_in_few_bits(golden, small_tokenizer, tmp_path, capsys):
    small_tokenizer.save(tmp_path / "tokenizer")
    start = ["--checkpoint", str(golden.folder), "--tokenizer", str(tmp_path / "tokenizer"), "--runtime", "onnx"]
    sizes = {}
    for quant in ([], ["--quant", "int8"], ["--quant", "int4"]):
        out = tmp_path / "-".join(["out", *quant])
        export([*start, *quant, "--out", str(out), "--new_tokens", "7"])
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["new_tokens"] == 7 and (not quant or manifest["quant"] == quant[1])
        sizes[out.name] = sum(file.stat().st_size for file in out.glob("*.data"))
    assert "prompts of up to 96 tokens" in capsys.readouterr().out
    whole, int8, int4 = sizes.values()
    assert int8 < 0.35 * whole and int4 < 0.3 * whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runtime", "onnx", "--platforms", "cpu"], "--platforms has no meaning for --runtime onnx"),
        (["--runtime", "onnx", "--dtype", "bfloat16"], "--dtype has no meaning for --runtime onnx"),
        (["--quant", "int8"], "--quant has no meaning for --runtime jax"),
    ],
)
def test_options_of_the_other_runtime_are_refused(golden, tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=f"error: {message}"):
        export(["--checkpoint", str(golden.folder), "--out", str(tmp_path / "out"), *arguments])
