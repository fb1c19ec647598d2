"""GGUF files that hold something else, or are damaged: one sentence, and nothing is written."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("gguf")

from convert.gguf_llama import gguf_to_llama
from smolrgpt_jax.errors import CheckpointError
from tests.convert.gguf_files import TOKENS, WIDTH, tokenizer_metadata, write_gguf
from tests.mutations import PAGE, POINTER, numbers_of_examples, reproducible

NAMES = tokenizer_metadata()
OTHERS = {
    "architecture": ({"arch": "qwen2"}, "general.architecture='qwen2' is not supported, only 'llama'"),
    "experts": ({"metadata": {"llama.expert_count": 8}}, "llama.expert_count=8 is not supported, only 0"),
    "scaled rotary": ({"metadata": {"llama.rope.scaling.type": "yarn"}}, "scaling.type='yarn' is not supported"),
    "factors of rotary": (
        {"tensors": {"rope_freqs.weight": np.ones(8, np.float32)}},
        r"does not fit its metadata: unexpected rope_freqs.weight \[8\]",
    ),
    "part of rotary": ({"metadata": {"llama.rope.dimension_count": 8}}, "dimension_count=8 is not supported, only 16"),
    "split file": ({"metadata": {"split.count": 3}}, "split.count=3 is not supported, only 1"),
    "no size": ({"metadata": {"llama.block_count": None}}, "the metadata lack llama.block_count"),
    "a size of another kind": (
        {"metadata": {"llama.block_count": "2"}},
        "decoder.layers is '2', expected a whole number",
    ),
    "a size that lies": ({"metadata": {"llama.block_count": 10**9}}, "decoder.layers is 1000000000, expected"),
    "odd heads": ({"metadata": {"llama.attention.head_count": 5}}, "width 64 does not divide into 5 heads"),
    "missing": ({"tensors": {"blk.1.ffn_up.weight": None}}, r"missing blk.1.ffn_up.weight \[96, 64\]"),
    "another shape": (
        {"tensors": {"blk.0.attn_v.weight": np.zeros((WIDTH, WIDTH), np.float32)}},
        r"blk.0.attn_v.weight has shape \[64, 64\], metadata asks for \[32, 64\]",
    ),
    "bias": ({"tensors": {"blk.0.attn_q.bias": np.ones(64, np.float32)}}, r"unexpected blk.0.attn_q.bias \[64\]"),
    "a kind that is not decoded": (
        {"tensors": {"output_norm.weight": np.ones(WIDTH, np.int32)}},
        "output_norm.weight is of type I32, which the package gguf does not decode",
    ),
    "infinite": (
        {"tensors": {"output_norm.weight": np.full(WIDTH, np.inf, np.float32)}},
        "output_norm.weight holds NaN or infinite values",
    ),
    "another tokenizer": (
        {"metadata": {"tokenizer.ggml.model": "llama"}},
        "model='llama' is not supported, only 'gpt2'",
    ),
    "another splitting": ({"metadata": {"tokenizer.ggml.pre": "tekken"}}, "pre='tekken' is not supported, only smollm"),
    "no splitting": ({"metadata": {"tokenizer.ggml.pre": None}}, "tokenizer.ggml.pre=None is not supported"),
    "no tokens": ({"metadata": {"tokenizer.ggml.tokens": None}}, "the metadata have no list tokenizer.ggml.tokens"),
    "numbers for tokens": ({"metadata": {"tokenizer.ggml.tokens": [1, 2]}}, "have no list tokenizer.ggml.tokens"),
    "more kinds than tokens": (
        {"metadata": {"tokenizer.ggml.token_type": [1] * 7}},
        f"tokenizer.ggml.token_type has 7 entries for {TOKENS} tokens",
    ),
    "a token twice": (
        {"metadata": {"tokenizer.ggml.tokens": [*NAMES["tokenizer.ggml.tokens"][:-1], "a"]}},
        "1 of its tokens are there twice",
    ),
    "a merge of nothing": (
        {"metadata": {"tokenizer.ggml.merges": ["never here"]}},
        "its tokens and merges make no tokenizer",
    ),
    "a merge of one": ({"metadata": {"tokenizer.ggml.merges": ["a"]}}, "its tokens and merges make no tokenizer"),
    "an end that no token is": (
        {"metadata": {"tokenizer.ggml.eos_token_id": TOKENS}},
        f"tokenizer.ggml.eos_token_id is {TOKENS} of {TOKENS} tokens",
    ),
    "an alignment of nothing": ({"metadata": {"general.alignment": "much"}}, "general.alignment is 'much'"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_model_is_one_sentence(tmp_path, what):
    changes, message = OTHERS[what]
    write_gguf(tmp_path / "model.gguf", **changes)
    with pytest.raises(CheckpointError, match=f"model.gguf.*{message}") as told:
        gguf_to_llama(tmp_path / "model.gguf", tmp_path / "folder")
    assert "\n" not in str(told.value)
    assert [file.name for file in tmp_path.iterdir()] == ["model.gguf"]


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """The bytes of a good file."""
    file = tmp_path_factory.mktemp("valid") / "model.gguf"
    write_gguf(file, "Q8_0")
    return file.read_bytes()


def start(version=3, tensors=0, pairs=0):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs)


def text(value):
    return struct.pack("<Q", len(value)) + value


def entry(name=b"t", shape=(32,), kind=0, place=0):
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, place)


FILES = {
    "empty": (b"", "is empty"),
    "pointer": (POINTER, "is a Git LFS pointer"),
    "page": (PAGE, "is a web page, not the file"),
    "something": (b"safetensors" * 9, "is no GGUF file"),
    "magic alone": (b"GGUF", "ends within its header"),
    "first version": (start(version=1), "version 1 is not read, only 2 and 3"),
    "big end first": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version 50331648 is not read"),
    "metadata of nothing": (start(pairs=2**60), "ends within its header"),
    "tensors of nothing": (start(tensors=2**60), "ends within its header"),
    "a long text": (start(pairs=1) + struct.pack("<Q", 2**63), "ends within its header"),
    "a long list": (start(pairs=1) + text(b"k") + struct.pack("<IIQ", 9, 0, 2**60), "ends within its header"),
    "a list of lists": (start(pairs=1) + text(b"k") + struct.pack("<IIQ", 9, 9, 1), "k is of an unknown type"),
    "another type": (start(pairs=1) + text(b"k") + struct.pack("<I", 13), "k is of an unknown type"),
    "no text": (start(pairs=1) + text(b"\xff\xfe"), "a text of its header is no UTF-8"),
    "many dimensions": (start(tensors=1) + text(b"t") + struct.pack("<I", 10**6), "t has 1000000 dimensions"),
    "kind of tomorrow": (start(tensors=1) + entry(kind=250), "t is of type number 250, which"),
    "half a block": (
        start(tensors=1) + entry(shape=(33,), kind=8),
        "rows of t have 33 numbers, blocks of Q8_0 have 32",
    ),
    "no numbers": (start(tensors=1) + entry(shape=(0, 3)), "rows of t have 0 numbers"),
    "a vast tensor": (start(tensors=1) + entry(shape=(2**62, 2**62)), "is cut off: t ends at byte"),
    "one tensor twice": (start(tensors=2) + entry() + entry(), "t is there twice"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_file_of_another_kind_is_one_sentence(tmp_path, what):
    data, message = FILES[what]
    # What is said about a tensor comes after its data are known to be there, but for those that are cut off.
    (tmp_path / "model.gguf").write_bytes(data + bytes(0 if "ends within" in message or len(data) < 4 else 320))
    with pytest.raises(CheckpointError, match=f"model.gguf.*{message}"):
        gguf_to_llama(tmp_path / "model.gguf", tmp_path / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["model.gguf"]


@pytest.mark.parametrize("end", [-1, -70000, 20000, 900, 30])
def test_a_file_that_is_cut_off_is_one_sentence(tmp_path, valid, end):
    (tmp_path / "model.gguf").write_bytes(valid[:end])
    with pytest.raises(CheckpointError, match="model.gguf is cut off"):
        gguf_to_llama(tmp_path / "model.gguf", tmp_path / "folder")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="model.gguf cannot be read: No such file"):
        gguf_to_llama(tmp_path / "model.gguf", tmp_path / "folder")


@numbers_of_examples(60)
def test_a_flipped_byte_is_told_or_changes_what_it_stands_for(tmp_path_factory, valid, examples):
    """Never another error, and never half a folder. Three of four bytes are in what is not a token's text."""
    sizes = valid.index(b"tokenizer.ggml.tokens")
    entries = valid.rindex(b"blk.1.ffn_down.weight") + 64

    @reproducible(examples)
    @given(st.integers(0, sizes) | st.integers(entries - 1400, entries) | st.integers(0, entries), st.integers(1, 255))
    def check(place, change):
        folder = tmp_path_factory.mktemp("flipped")
        data = bytearray(valid)
        data[place] ^= change
        (folder / "model.gguf").write_bytes(data)
        try:
            gguf_to_llama(folder / "model.gguf", folder / "folder")
        except CheckpointError as error:
            assert "\n" not in str(error)
            assert [file.name for file in folder.iterdir()] == ["model.gguf"]
        else:
            held = sorted(file.name for file in (folder / "folder").iterdir())
            assert held == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]

    check()
