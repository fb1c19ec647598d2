"""What a run starts from, and what it refuses to start from."""

from __future__ import annotations

import dataclasses
import json
import shutil
import types

import numpy as np
import pytest

from benchmarks.start import make_prepared
from configs import default, demo
from smolrgpt_jax.checkpoint import orbax as checkpoints
from smolrgpt_jax.checkpoint.load import Checkpoint, tokenizer_files, tokenizer_from_files
from smolrgpt_jax.config import PRESETS
from smolrgpt_jax.data.batches import data_facts
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.errors import CheckpointError, RunError
from smolrgpt_jax.models.smolrgpt import abstract_params
from smolrgpt_jax.training.data import check_shared_memory, read_rows, run_compute
from smolrgpt_jax.training.data import read_start as read
from smolrgpt_jax.training.stages import STAGES
from tests.conftest import TINY as GOLDEN
from tests.training.test_run import TINY


def read_start(run) -> Checkpoint:
    return read(run, STAGES[run["stage"]])


def settings(stage, init_from="", **changes):
    config = default.get_config()
    config.update({"stage": stage, "init_from": str(init_from), **changes})
    return config.to_dict()


@pytest.fixture(scope="module")
def checkpoint_of(tmp_path_factory):
    """A function that writes a small checkpoint of a stage; None: an imported one."""
    folder = tmp_path_factory.mktemp("inputs")
    tokenizer = tokenizer_files(ChatTokenizer.load(demo.TOKENIZER))
    params = {name: np.zeros(s.shape, s.dtype) for name, s in abstract_params(TINY).items()}

    def write(stage, params=params):
        path = folder / f"{stage}-{len(params)}"
        if not path.exists():
            run = None if stage is None else {"stage": stage}
            checkpoints.save(path, params, checkpoints.Meta(TINY, tokenizer, run=run))
        return path

    return write


@pytest.mark.parametrize(
    ("stage", "previous"),
    [
        ("connector_alignment", "backbone"),
        ("refiner_alignment", "connector_alignment"),
        ("refiner_alignment", "refiner_alignment"),
        ("sft", "refiner_alignment"),
        ("mixed", "sft"),
        ("sft", None),
        ("backbone", "sft"),
    ],
)
def test_stages_that_follow_each_other_start(checkpoint_of, stage, previous):
    assert read_start(settings(stage, checkpoint_of(previous))).params is not None


@pytest.mark.parametrize(
    ("stage", "previous"),
    [("connector_alignment", "sft"), ("refiner_alignment", "backbone"), ("sft", "connector_alignment")],
)
def test_a_stage_out_of_order_is_refused_unless_it_is_the_callers_own(checkpoint_of, stage, previous):
    run = settings(stage, checkpoint_of(previous))
    with pytest.raises(RunError, match=f"stage {stage} follows .*, not stage {previous}: give another"):
        read_start(run)
    own = dataclasses.replace(STAGES[stage], after=())
    assert read(run, own).params is not None


def test_a_published_stage_does_not_start_from_random_parameters():
    with pytest.raises(RunError, match="stage sft follows .*, not random parameters"):
        read_start(settings("sft", tokenizer=demo.TOKENIZER))


def test_a_start_that_is_missing_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere: no such checkpoint"):
        read_start(settings("sft", tmp_path / "nowhere"))
    with pytest.raises(RunError, match="config.tokenizer names no tokenizer"):
        read_start(settings("backbone", tokenizer=""))


def test_parameters_of_another_architecture_are_named(checkpoint_of):
    params = {name: np.zeros(s.shape, s.dtype) for name, s in abstract_params(PRESETS["demo"]).items()}
    params.pop("rgb_connector/proj/kernel")
    with pytest.raises(CheckpointError, match="does not fit its configuration: missing rgb_connector/proj/kernel "):
        read_start(settings("sft", checkpoint_of("refiner_alignment", params)))


def test_a_checkpoint_of_another_kind_of_model_is_refused(tmp_path):
    shutil.copytree(GOLDEN / "checkpoint", tmp_path / "other")
    file = tmp_path / "other/config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({"model_type": "longformer", "hidden_size": 96, "vocab_size": 515}))
    with pytest.raises((RunError, CheckpointError), match="other") as error:
        read_start(settings("sft", tmp_path / "other"))
    assert "\n" not in str(error.value) and config


@pytest.mark.parametrize("closing_answer", [False, True])
def test_the_chat_format_comes_from_the_configuration(closing_answer):
    """And goes with the tokenizer into checkpoints; by default it is the published one."""
    run = settings("backbone", tokenizer=demo.TOKENIZER)
    run["model"]["preset"] = "demo"
    assert not run["data"]["closing_answer"]
    run["data"]["closing_answer"] = closing_answer
    tokenizer = read_start(run).tokenizer
    assert tokenizer.format.closing_answer is closing_answer
    assert tokenizer_from_files(tokenizer_files(tokenizer)).format.closing_answer is closing_answer


def test_a_pytorch_folder_brings_its_tokenizer(tmp_path):
    start = read_start(settings("connector_alignment", demo.BACKBONE))
    assert start.tokenizer.vocab_size == ChatTokenizer.load(demo.TOKENIZER).vocab_size
    shutil.copytree(demo.BACKBONE, tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").unlink()
    with pytest.raises(RunError, match="config.tokenizer names no tokenizer and init_from brings none"):
        read_start(settings("connector_alignment", tmp_path / "bare"))


def test_workers_need_shared_memory_for_their_batches(monkeypatch):
    run = settings("sft", batch_rows=8)
    run["data"]["row_tokens"] = 0
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=64 * 2**20))
    check_shared_memory(TINY, run, regions=True)
    run["data"]["workers"] = 1
    check_shared_memory(TINY, run, regions=True)
    run["data"]["workers"] = 9
    with pytest.raises(RunError, match="config.data.workers=9 needs [0-9]+ MiB of /dev/shm, .* and 64 MiB are free"):
        check_shared_memory(TINY, run, regions=True)


def test_tokens_and_rows_are_kept_in_the_folder_of_the_setting(tmp_path):
    root, run = make_prepared(tmp_path, 3, scenes=3), settings("sft")
    sources = {"warehouse": {"format": "prepared", "root": str(root), "split": "train"}}
    start = Checkpoint(PRESETS["demo"], {}, ChatTokenizer.load(demo.TOKENIZER))
    run["data"] |= {"cache": str(tmp_path / "cache"), "row_tokens": 0}
    made, read = (read_rows(run["data"], sources, start, BadRecords())[0] for _ in range(2))
    assert len(list((tmp_path / "cache").iterdir())) == 2 and not (root / "kept").exists()
    assert data_facts(made, "training") == data_facts(read, "training")


def test_the_attention_has_to_take_the_dtype_of_the_run():
    run = settings("sft")
    run["model"] |= {"attention": "cudnn", "compute_dtype": "bfloat16"}
    assert run_compute(TINY, run, "gpu", 384).attention == "cudnn"
    run["model"]["compute_dtype"] = "float32"
    with pytest.raises(RunError, match="cudnn attention computes in bfloat16 only, not in float32"):
        run_compute(TINY, run, "gpu", 384)
