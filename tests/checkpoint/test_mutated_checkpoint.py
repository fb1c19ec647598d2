"""A checkpoint with one damaged file: what is read is right, or is told; nothing is read as something else.

But for the numbers of weights, of which no format keeps a checksum.
"""

from __future__ import annotations

import json
import re
from dataclasses import is_dataclass

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from configs import demo
from convert.inspection import describe
from smolrgpt_jax.checkpoint import orbax
from smolrgpt_jax.checkpoint.load import read_checkpoint, tokenizer_files
from smolrgpt_jax.checkpoint.torch import OURS, write_folder
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.errors import told
from smolrgpt_jax.models.smolrgpt import abstract_params
from smolrgpt_jax.router.classify import load_router
from tests.checkpoint.test_paths import write_router
from tests.mutations import changed, changed_copy, files_of, numbers_of_examples, reproducible
from tests.training.test_run import TINY

RUN = {"run": {"seed": 1, "validation_answer_tokens": 60}, "stage": "sft", "step": 3, "steps": 9, "metrics": {}}


def write_step(folder, params, tokenizer):
    saver = orbax.TrainingCheckpoints(folder, keep=1)
    arrays = {name: jnp.asarray(array) for name, array in params.items()}
    saver.save(3, arrays, {"count": jnp.zeros(())}, orbax.Meta(TINY, tokenizer, run=RUN))
    saver.close()


WRITE = {
    "PyTorch folder": lambda folder, params, tokenizer: write_folder(folder, TINY, params, tokenizer=tokenizer),
    "converted": lambda folder, params, tokenizer: orbax.save(folder, params, orbax.Meta(TINY, tokenizer)),
    "work directory": write_step,
    "router": lambda folder, params, tokenizer: write_router(folder, TINY, params),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """{kind: folder} of one random model with its tokenizer."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("valid")
    params = {n: rng.normal(size=s.shape).astype(np.float32) for n, s in abstract_params(TINY).items()}
    tokenizer = tokenizer_files(ChatTokenizer.load(demo.TOKENIZER))
    for kind, write in WRITE.items():
        write(root / kind, params, tokenizer)
    return root


def read(kind, path):
    """What a checkpoint means: sizes, numbers, how texts are tokenised, what it says of its training."""
    if kind == "router":
        router = load_router(path)
        return router, router._params, router._tokenizer.encode(["How far is the pallet?"])
    found = read_checkpoint(path)
    describe(path)
    ids = None if found.tokenizer is None else found.tokenizer.tokens("How far is the pallet?")
    return found, {name: np.asarray(found.params[name]) for name in found.params}, ids


def only_numbers(name, old, new):
    """Whether a change is one of numbers alone: in a chunk of an array, or behind the header of a safetensors file."""
    same_size = isinstance(new, bytes) and len(new) == len(old)
    header = 8 + int.from_bytes(old[:8], "little") if name.endswith(".safetensors") else 0
    chunk = re.search("params/(.*/[0-9.]+|.*/d/[0-9a-f]+)$", name)
    return bool(same_size and (chunk or header and new[:header] == old[:header]))


def settings_of(config):
    """{name with its section: value} of a configuration."""
    parts = {"": vars(config)} | {f"{name}.": vars(part) for name, part in vars(config).items() if is_dataclass(part)}
    found = {f"{part}{name}": value for part, values in parts.items() for name, value in values.items()}
    return {name: value for name, value in found.items() if f"{name}." not in parts}


@numbers_of_examples(few=10)
def test_a_damaged_file_is_told_or_makes_no_difference(written, tmp_path, caplog, examples):
    kinds = {kind: (files_of(written / kind), read(kind, written / kind)) for kind in WRITE}
    folders = iter(range(10**6))

    @reproducible(examples)
    @given(st.sampled_from(list(WRITE)).flatmap(lambda kind: st.tuples(st.just(kind), changed(kinds[kind][0]))))
    def one_change(change):
        kind, (name, content) = change
        files, valid = kinds[kind]
        assume(not only_numbers(name, files[name], content))
        root = changed_copy(written / kind, tmp_path / str(next(folders)), name, content)
        caplog.clear()
        try:
            with told():
                found, params, ids = read(kind, root)
        except SystemExit as stop:
            assert str(root) in str(stop) and str(stop).startswith("error: ") and len(str(stop).splitlines()) == 1
            return
        now, before = settings_of(found.config), settings_of(valid[0].config)
        different = {setting for setting in before if now[setting] != before[setting]}
        if name == "config.json" and different:
            # What the file now says, or a line about what it does not say. A router's fields have transformers' defaults.
            said, known = json.loads(content), OURS | {"vlm_extra_tokens": "special_tokens"}
            assert kind == "router" or caplog.records or all(key in said for key in known)
            missing = kind == "router" or {known[key] for key in known if said.get(key) != json.loads(files[name])[key]}
            assert missing is True or different <= missing
        else:
            assert not different
        # Another tokenizer that holds together is what the file now says.
        assert ids in (None, valid[2]) or "token" in name or name == "meta/metadata"
        for key, array in valid[1].items():
            np.testing.assert_array_equal(params[key], array, err_msg=key)

    one_change()
