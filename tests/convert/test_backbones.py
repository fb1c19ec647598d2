"""Hugging Face's SigLIP and Llama folders, as transformers writes them, to a checkpoint to train from."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from convert import __main__ as command
from convert.folders import build
from smolrgpt_jax import load
from smolrgpt_jax.checkpoint import orbax as checkpoints
from smolrgpt_jax.checkpoint.torch import write_folder
from smolrgpt_jax.config import PRESETS
from smolrgpt_jax.errors import CheckpointError, DataError
from smolrgpt_jax.files import model_folder
from smolrgpt_jax.models.smolrgpt import abstract_params

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOKENIZER = Path(__file__).parents[1] / "data_files" / "text" / "tokenizer"
WEIGHTS = "model.safetensors"
EXTRA = 3
TOKENS = 785  # of the tokenizer, with the extra ones


def randomise(model):
    """Weights under which norms, biases and every position matter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Folders as the hub has them: siglip (whole), siglip_vision (tower), llama (tied, bfloat16, sharded, tokenizer), untied."""
    root = tmp_path_factory.mktemp("hub")
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    }
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "vocab_size": 50,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    whole = transformers.SiglipModel(transformers.SiglipConfig(vision_config=sizes, text_config=text))
    randomise(whole).save_pretrained(root / "siglip")
    tower = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**sizes))
    randomise(tower).save_pretrained(root / "siglip_vision")
    llama = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 50000.0,
        "max_position_embeddings": 8192,
        "vocab_size": TOKENS - EXTRA,
    }
    for name, tied, dtype in (("llama", True, torch.bfloat16), ("untied", False, torch.float32)):
        config = transformers.LlamaConfig(**llama, tie_word_embeddings=tied)
        model = randomise(transformers.LlamaForCausalLM(config)).to(dtype)
        model.save_pretrained(root / name, max_shard_size="60KB" if tied else "5GB")
    for file in TOKENIZER.iterdir():
        shutil.copy(file, root / "llama")
    return root


@pytest.fixture(scope="module")
def stage0(hub, tmp_path_factory):
    path = tmp_path_factory.mktemp("stage0") / "model"
    build(str(hub / "siglip"), str(hub / "llama"), path, seed=3)
    return path


def test_the_vision_tower_computes_what_transformers_does(hub, stage0):
    model = load(stage0)
    pictures = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    tokens = np.full((2, 4), 5, np.int32)
    ours = model.forward(tokens, np.ones_like(tokens), pictures)["vision_features_rgb"]
    reference = transformers.SiglipModel.from_pretrained(hub / "siglip").vision_model
    with torch.no_grad():
        theirs = reference(torch.from_numpy(pictures.transpose(0, 3, 1, 2))).last_hidden_state.numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_the_encoder_of_a_whole_model_sees_what_it_saw_there(hub, tmp_path):
    """With its shuffle factor, which the picture's tokens follow from, and none of its other parts."""
    config, rng = PRESETS["demo"].replace(shuffle_factor=4), np.random.default_rng(1)
    params = {n: rng.normal(0, 0.1, p.shape).astype(np.float32) for n, p in abstract_params(config).items()}
    write_folder(tmp_path / "whole", config, params)
    build(str(tmp_path / "whole"), str(hub / "llama"), tmp_path / "model", seed=3)
    joined = load(tmp_path / "model")
    assert joined.config.vision == config.vision and joined.config.shuffle_factor == 4
    assert joined.config.decoder.width == 48 and joined.tokenizer.vocab_size == TOKENS
    seen = [name for name in params if name.startswith("vision_encoder/")]
    assert len(seen) > 10
    for name in seen:
        np.testing.assert_array_equal(joined.params[name], params[name], err_msg=name)
    assert joined.params["rgb_connector/proj/kernel"].shape == (4 * 4 * 128, 48)


@pytest.mark.parametrize("language", ["llama", "untied"])
def test_the_decoder_computes_what_transformers_does(hub, tmp_path, language):
    build(str(hub / "siglip_vision"), str(hub / language), tmp_path / "model")
    tokens = np.random.default_rng(0).integers(3, TOKENS - EXTRA, (2, 9)).astype(np.int32)
    pictures = np.zeros((2, 32, 32, 3), np.float32)
    ours = load(tmp_path / "model").forward(tokens, np.ones_like(tokens), pictures)["logits"]
    reference = transformers.LlamaForCausalLM.from_pretrained(hub / language, dtype=torch.float32)
    with torch.no_grad():
        theirs = reference(torch.from_numpy(tokens).long()).logits.numpy()
    assert ours.shape[-1] == TOKENS
    np.testing.assert_allclose(ours[..., :-EXTRA], theirs, atol=1e-5 * np.abs(theirs).max())


def test_a_tower_without_prefix_gives_the_same_encoder(hub, tmp_path):
    """The whole model's folder and its tower's differ in names only."""
    tensors = load_file(hub / "siglip" / WEIGHTS)
    shutil.copytree(hub / "siglip", tmp_path / "tower")
    start = "vision_model."
    save_file(
        {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}, tmp_path / "tower" / WEIGHTS
    )
    build(str(hub / "siglip"), str(hub / "untied"), tmp_path / "a")
    build(str(tmp_path / "tower"), str(hub / "untied"), tmp_path / "b")
    a, b = (checkpoints.load_params(tmp_path / n) for n in "ab")
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_what_the_backbones_lack_is_drawn_as_for_a_new_model(stage0):
    params = checkpoints.load_params(stage0)
    for name, fan_in in (("rgb_connector/proj", 4 * 32), ("depth_connector/proj", 4 * 32), ("rgb_refiner/up1", 48)):
        assert params[f"{name}/kernel"].std() == pytest.approx(fan_in**-0.5, rel=0.05)
    assert (params["depth_refiner/norm1/scale"] == 1).all() and not params["depth_refiner/up2/bias"].any()
    assert not np.array_equal(params["rgb_connector/proj/kernel"], params["depth_connector/proj/kernel"])
    table = params["decoder/token_embedding"]
    assert table[TOKENS - EXTRA : TOKENS].std() == pytest.approx(0.02, rel=0.2)
    assert not table[TOKENS:].any()


def test_the_draw_is_the_seed_s(hub, stage0, tmp_path):
    for name, seed in (("same", 3), ("other", 4)):
        build(str(hub / "siglip"), str(hub / "llama"), tmp_path / name, seed=seed)
    first, same, other = (checkpoints.load_params(p) for p in (stage0, tmp_path / "same", tmp_path / "other"))
    changed = {name for name in first if not np.array_equal(first[name], other[name])}
    assert all(np.array_equal(first[name], same[name]) for name in first)
    kernels = {f"{part}_refiner/up{i}/kernel" for part in ("rgb", "depth") for i in (1, 2, 3)}
    connectors = {"rgb_connector/proj/kernel", "depth_connector/proj/kernel"}
    assert changed == kernels | connectors | {"decoder/token_embedding"}


def test_it_brings_configuration_and_tokenizer(stage0):
    model = load(stage0)
    assert (model.config.vision.grid, model.config.decoder.rope_base) == (4, 50000.0)
    assert model.tokenizer.vocab_size == model.config.decoder.vocab_size == TOKENS
    assert {str(p.dtype) for p in model.params.values()} == {"float32"}
    assert checkpoints.read_meta(stage0).run is None


def test_bfloat16_is_read_exactly(hub, stage0):
    tensors = {n: t for f in sorted((hub / "llama").glob("*.safetensors")) for n, t in load_file(f).items()}
    embedding = tensors["model.embed_tokens.weight"]
    assert embedding.dtype == np.dtype(ml_dtypes.bfloat16)
    params = checkpoints.load_params(stage0)
    np.testing.assert_array_equal(params["decoder/token_embedding"][: len(embedding)], embedding.astype(np.float32))


@pytest.mark.parametrize(
    ("folder", "change", "message"),
    [
        ("untied", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_type='llama3'"),
        ("untied", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling="),
        ("untied", {"attention_bias": True}, "attention_bias=True"),
        ("untied", {"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ("untied", {"model_type": "mistral"}, "model_type='mistral'"),
        ("untied", {"head_dim": 16}, "head_dim=16"),
        ("siglip_vision", {"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ("siglip_vision", {"model_type": "siglip2_vision_model", "num_patches": 256}, "'siglip2_vision_model' is not"),
        (
            "siglip_vision",
            {"image_size": 64},
            "position_embedding.weight has shape [16, 32], config.json asks for [64, 32]",
        ),
        ("siglip_vision", {"num_channels": 1}, "num_channels=1"),
        ("untied", {"num_hidden_layers": 2}, "unexpected model.layers.2."),
        ("untied", {"num_attention_heads": 7}, "head_dim=8 is not supported"),
    ],
)
def test_what_this_model_does_not_have_is_refused(hub, tmp_path, folder, change, message):
    copy = Path(shutil.copytree(hub / folder, tmp_path / "copy"))
    values = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(values | change))
    names = {"siglip_vision": hub / "siglip_vision", "untied": hub / "untied"} | {folder: copy}
    with pytest.raises(CheckpointError) as error:
        build(str(names["siglip_vision"]), str(names["untied"]), tmp_path / "out" / "model")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_missing_and_unexpected_tensors_are_listed(hub, tmp_path):
    copy = Path(shutil.copytree(hub / "siglip_vision", tmp_path / "copy"))
    tensors = load_file(copy / WEIGHTS)
    del tensors["encoder.layers.1.self_attn.k_proj.bias"]
    tensors["adapter.weight"] = np.zeros(3, np.float32)
    tensors["embeddings.patch_embedding.weight"] = np.zeros((32, 192), np.float32)
    save_file(tensors, copy / WEIGHTS)
    with pytest.raises(CheckpointError) as error:
        build(str(copy), str(hub / "untied"), tmp_path / "model")
    for part in (
        "missing encoder.layers.1.self_attn.k_proj.bias [32]",
        "unexpected adapter.weight",
        "embeddings.patch_embedding.weight has shape [32, 192], config.json asks for [32, 3, 8, 8]",
    ):
        assert part in str(error.value)


def test_nan_weights(hub, tmp_path):
    copy = Path(shutil.copytree(hub / "untied", tmp_path / "copy"))
    tensors = load_file(copy / WEIGHTS)
    tensors["model.norm.weight"][0] = np.nan
    save_file(tensors, copy / WEIGHTS)
    with pytest.raises(CheckpointError, match="model.norm.weight holds NaN"):
        build(str(hub / "siglip"), str(copy), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy"]


def test_a_tokenizer_of_another_size(hub, tmp_path, golden):
    copy = Path(shutil.copytree(hub / "untied", tmp_path / "copy"))
    values = json.loads((copy / "config.json").read_text())
    tensors = load_file(copy / WEIGHTS)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][:-2].copy()
    save_file(tensors, copy / WEIGHTS)
    (copy / "config.json").write_text(json.dumps(values | {"vocab_size": TOKENS - EXTRA - 2}))
    with pytest.raises(CheckpointError, match=f"has {TOKENS} tokens, .* {TOKENS - 2}"):
        build(str(hub / "siglip"), str(copy), tmp_path / "out", tokenizer=str(TOKENIZER))


@pytest.mark.parametrize("difference", [0, 0.25])
def test_a_head_beside_the_embedding_that_it_is_tied_to_is_the_same(hub, tmp_path, difference):
    copy = Path(shutil.copytree(hub / "untied", tmp_path / "copy"))
    values = json.loads((copy / "config.json").read_text()) | {"tie_word_embeddings": True}
    (copy / "config.json").write_text(json.dumps(values))
    tensors = load_file(copy / WEIGHTS)
    head, embedding = "lm_head.weight", "model.embed_tokens.weight"
    tensors[head] = tensors[embedding].copy()
    tensors[head][1, 2] += difference
    save_file({f"model.language_model.{n}": t for n, t in tensors.items()}, copy / WEIGHTS)
    if not difference:
        assert build(str(hub / "siglip"), str(copy), tmp_path / "out").decoder.tied_head
        return
    with pytest.raises(
        CheckpointError, match=f"{head} and {embedding} differ though config.json ties them, by up to 0.25"
    ):
        build(str(hub / "siglip"), str(copy), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["./missing", "/missing", "a/b/c"])
def test_a_path_is_never_looked_up_on_the_hub(monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("looked up"))
    with pytest.raises(DataError, match="no such folder"):
        model_folder(name, "vision encoder", ())


def test_a_missing_folder_beside_others_is_a_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("looked up"))
    with pytest.raises(DataError, match="'runs/missing' .* no such folder"):
        model_folder("runs/missing", "vision encoder", ())


def test_without_a_network_the_command_says_one_sentence(monkeypatch, tmp_path):
    def offline(name, **_):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    arguments = ["--vision", "google/siglip", "--language", "me/llama", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["convert", "backbones", *arguments])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == (
        "error: vision encoder 'google/siglip': neither a folder here nor a model that can be fetched from the Hugging Face hub (no network)"
    )


def test_a_hub_id_is_fetched(monkeypatch, hub):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(hub / name.split("/")[1]))
    assert model_folder("google/siglip", "vision encoder", ()) == hub / "siglip"
