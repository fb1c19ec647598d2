"""Llama models in GGUF files, as the package gguf writes them, against transformers on the numbers that their blocks stand for."""

import json
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

torch = pytest.importorskip("torch")
gguf = pytest.importorskip("gguf")

import transformers

from convert.gguf_header import read_gguf
from convert.gguf_llama import gguf_to_llama
from smolrgpt_jax import load
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.errors import CheckpointError
from tests.convert.gguf_files import HEADS, MLP, TOKENIZER, TOKENS, WIDTH, tokenizer_metadata, write_gguf

WEIGHTS = "model.safetensors"
EXTRA = 3


def read_by_transformers(folder):
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert model.config.vocab_size == TOKENS and model.config.num_attention_heads == HEADS
    return model


def made_by_transformers(weights):
    """transformers' own model of these numbers."""
    config = transformers.LlamaConfig(
        vocab_size=TOKENS,
        hidden_size=WIDTH,
        intermediate_size=MLP,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 50000.0},
        tie_word_embeddings="lm_head.weight" not in weights,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    missing, unexpected = model.load_state_dict({n: torch.tensor(w) for n, w in weights.items()}, strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unexpected
    return model


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor(ids, dtype=torch.int64)).logits.numpy()


@pytest.fixture(scope="module")
def vision(tmp_path_factory):
    """A SigLIP folder of the smallest size."""
    folder = tmp_path_factory.mktemp("vision")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}
    how = {"image_size": 16, "patch_size": 8, "vision_use_head": False}
    transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**sizes, **how)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_weights_are_what_the_blocks_stand_for(tmp_path, kind):
    expected = write_gguf(tmp_path / "model.gguf", kind)
    gguf_to_llama(tmp_path / "model.gguf", tmp_path / "folder")
    found = load_file(tmp_path / "folder" / WEIGHTS)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize(("kind", "tied"), [("Q4_1", True), ("Q8_0", False)])
def test_it_computes_what_transformers_does(tmp_path, vision, run, kind, tied):
    """The folder read by transformers, and the file joined to a model of ours, against transformers' model of the same numbers."""
    file = tmp_path / "model.gguf"
    reference = made_by_transformers(write_gguf(file, kind, tied))
    ids = np.random.default_rng(1).integers(3, TOKENS, (2, 30)).astype(np.int32)
    expected = logits_of(reference, ids)
    run("gguf", file, tmp_path / "folder")
    np.testing.assert_array_equal(logits_of(read_by_transformers(tmp_path / "folder"), ids), expected)
    run("backbones", "--vision", vision, "--language", file, tmp_path / "joined")
    model = load(tmp_path / "joined")
    assert model.config.decoder.tied_head is tied and model.config.decoder.max_positions == 512
    ours = model.forward(ids, np.ones_like(ids), np.zeros((2, 16, 16, 3), np.float32))["logits"]
    np.testing.assert_allclose(ours[..., :-EXTRA], expected, atol=1e-5 * np.abs(expected).max())


def dequantised_kinds():
    found = []
    for kind, (_, size) in gguf.GGML_QUANT_SIZES.items():
        try:
            gguf.quants.dequantize(np.zeros((1, size), np.uint8), kind)
        except NotImplementedError:
            continue
        found.append(kind)
    return found


@pytest.mark.parametrize("kind", dequantised_kinds(), ids=lambda kind: kind.name)
def test_every_kind_that_the_package_decodes_is_read(tmp_path, kind):
    """Against the package's own reader."""
    size = gguf.GGML_QUANT_SIZES[kind][1]
    # Small bytes, so that no scale is infinite.
    data = np.random.default_rng(0).integers(0, 64, (3, 2 * size), np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "one.gguf", "llama")
    writer.add_tensor("other", np.ones((5, 7), np.float32))
    writer.add_tensor("some", data, raw_dtype=kind)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "one.gguf").tensors}["some"]
    expected = gguf.quants.dequantize(theirs.data, theirs.tensor_type)
    ours = read_gguf(tmp_path / "one.gguf").tensors["some"]
    assert ours.shape == tuple(theirs.shape[::-1]) and ours.kind == kind.name
    np.testing.assert_array_equal(ours.read(), expected)


def test_a_smaller_dtype_is_asked_for(tmp_path, run):
    expected = write_gguf(tmp_path / "model.gguf", "F16")
    lines = run("gguf", tmp_path / "model.gguf", tmp_path / "folder", "--dtype", "float16")
    assert lines[-1] == f"20 tensors, {sum(w.size for w in expected.values()):,} parameters, 782 tokens"
    for name, array in load_file(tmp_path / "folder" / WEIGHTS).items():
        assert array.dtype == np.float16
        np.testing.assert_array_equal(array, expected[name].astype(np.float16))


def test_the_tokenizer_is_the_one_that_went_in(tmp_path):
    write_gguf(tmp_path / "model.gguf")
    gguf_to_llama(tmp_path / "model.gguf", tmp_path / "folder")
    ours, theirs = ChatTokenizer.load(tmp_path / "folder"), ChatTokenizer.load(TOKENIZER)
    texts = [q["question"] for q in json.loads((TOKENIZER.parents[1] / "warehouse_answers/questions.json").read_text())]
    texts += [
        "In 2026, 365 days.\n\n  x",
        "½ ² ⅷ 12３4",
        "<|im_end|><repo_name> <file_sep>",
        "it's  'RE ünïcode 日本 \t\u00a0!",
    ]
    for text in texts:
        assert ours.tokens(text) == theirs.tokens(text), text
        assert ours.decode(ours.tokens(text)) == theirs.decode(theirs.tokens(text))
    assert ours.vocab_size == theirs.vocab_size == TOKENS + EXTRA
    whole = transformers.AutoTokenizer.from_pretrained(tmp_path / "folder")
    named = whole.bos_token, whole.eos_token, whole.pad_token, whole.unk_token
    assert named == ("<|im_start|>", "<|im_end|>", "<|im_end|>", "<|endoftext|>")
    assert whole.apply_chat_template([{"role": "user", "content": "Hello."}], tokenize=False) == "Hello."
    assert whole("Hello.").input_ids == theirs.tokens("Hello.")
    assert whole.model_max_length == 512


def test_a_token_that_users_defined_is_found_whole_and_stays_in_the_text(tmp_path):
    names = tokenizer_metadata()
    changed = {"tokenizer.ggml.tokens": [*names["tokenizer.ggml.tokens"][:-1], "hello there"]}
    changed["tokenizer.ggml.token_type"] = [*names["tokenizer.ggml.token_type"][:-1], int(gguf.TokenType.USER_DEFINED)]
    changed["tokenizer.ggml.merges"] = names["tokenizer.ggml.merges"][:-1]  # which made the token that was there
    write_gguf(tmp_path / "model.gguf", metadata=changed)
    gguf_to_llama(tmp_path / "model.gguf", tmp_path / "folder")
    tokenizer = ChatTokenizer.load(tmp_path / "folder")
    ids = tokenizer.tokens("hello there!<file_sep>")
    assert ids[0] == TOKENS - 1 and tokenizer.decode(ids) == "hello there!"


@pytest.mark.parametrize(("bos", "eos"), [(True, False), (False, True), (True, True)])
def test_tokens_that_are_put_around_a_text(tmp_path, bos, eos):
    added = {"tokenizer.ggml.add_bos_token": bos, "tokenizer.ggml.add_eos_token": eos}
    write_gguf(tmp_path / "model.gguf", metadata=added)
    gguf_to_llama(tmp_path / "model.gguf", tmp_path / "folder")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "folder")
    plain = tokenizer("Hello.", add_special_tokens=False).input_ids
    assert tokenizer("Hello.").input_ids == [1] * bos + plain + [2] * eos
    assert ChatTokenizer.load(tmp_path / "folder").tokens("Hello.") == plain


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("smollm", "it's 365  x", ["it", "'s", "Ġ", "3", "6", "5", "Ġ", "Ġx"]),
        ("gpt-2", "it's 365  x", ["it", "'s", "Ġ365", "Ġ", "Ġx"]),
        ("llama-bpe", "IT'S 36512!\n x", ["IT", "'S", "Ġ", "365", "12", "!Ċ", "Ġx"]),
    ],
)
def test_texts_are_split_as_the_file_names_it(tmp_path, name, text, words):
    write_gguf(tmp_path / "model.gguf", metadata={"tokenizer.ggml.pre": name})
    gguf_to_llama(tmp_path / "model.gguf", tmp_path / "folder")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "folder").backend_tokenizer
    assert [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)] == words


def test_what_the_metadata_may_leave_out(tmp_path):
    """Key-value heads are then as many as heads, and the rotary base is llama.cpp's."""
    full = {f"blk.{i}.attn_{part}.weight": np.zeros((WIDTH, WIDTH), np.float32) for i in (0, 1) for part in "kv"}
    absent = dict.fromkeys(["llama.attention.head_count_kv", "llama.rope.freq_base", "llama.rope.dimension_count"])
    write_gguf(tmp_path / "model.gguf", metadata=absent, tensors=full)
    gguf_to_llama(tmp_path / "model.gguf", tmp_path / "folder")
    config = transformers.LlamaConfig.from_pretrained(tmp_path / "folder")
    assert (config.num_key_value_heads, config.rope_parameters["rope_theta"]) == (HEADS, 10000.0)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 2)


def test_without_the_package_it_says_what_to_install(tmp_path, run, monkeypatch):
    write_gguf(tmp_path / "model.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(
        SystemExit, match=r"error: reading GGUF files needs the package gguf: pip install -e '.\[gguf\]'"
    ):
        run("gguf", tmp_path / "model.gguf", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_folder_that_is_there_stays(tmp_path):
    write_gguf(tmp_path / "model.gguf")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match="exists already"):
        gguf_to_llama(tmp_path / "model.gguf", tmp_path / "folder")
    assert not any((tmp_path / "folder").iterdir())
