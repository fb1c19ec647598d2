"""Whole runs on a small procedural warehouse: stages, freezing, exact resume, refusals."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
import shutil
import signal
import time
import types

import jax
import numpy as np
import pytest

from configs import default, demo
from smolrgpt_jax import load, sharding
from smolrgpt_jax.checkpoint import orbax as checkpoints
from smolrgpt_jax.config import PRESETS, DecoderConfig, SmolRGPTConfig, VisionConfig
from smolrgpt_jax.data.sources.formats import read_source
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.training import run as loop
from smolrgpt_jax.training import watchdog
from smolrgpt_jax.training.stages import STAGES
from smolrgpt_jax.training.workdir import work_directory
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse
from tests.training.metrics_file import read_metrics

VOCAB = PRESETS["demo"].decoder.vocab_size  # the demo's tokenizer is used
TINY = SmolRGPTConfig(
    vision=VisionConfig(width=32, mlp_width=64, heads=2, layers=1, patch_size=16, image_size=64),
    decoder=DecoderConfig(width=32, mlp_width=64, heads=2, kv_heads=1, layers=1, vocab_size=VOCAB),
)


pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loop") / "data"
    make_warehouse(
        folder, WarehouseConfig(scenes=8, val_scenes=2, test_scenes=2, width=96, height=54, max_pallets=5), workers=1
    )
    return folder


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", TINY)


def run_config(data, **changes):
    config = default.get_config()
    config.stage = "backbone"
    config.tokenizer = demo.TOKENIZER
    config.model.update({"preset": "tiny", "compute_dtype": "float32", "remat": "none"})
    config.batch_rows = 8
    config.steps = 5
    config.log_every = 1
    config.save_every = 0
    config.validate_every = 0
    config.validation_rows = 8
    config.data.row_tokens = 384
    config.data.row_regions = 16
    config.data.sources = {"questions": default.warehouse(str(data), "train")}
    config.validation_sources = {"questions": default.warehouse(str(data), "val")}
    run = copy.deepcopy(config.to_dict())
    for name, value in changes.items():
        run[name] = value
    return run


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """An uninterrupted run of five steps."""
    PRESETS["tiny"] = TINY
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    return workdir, loop.train(run_config(data), workdir)


def params_of(workdir):
    return checkpoints.load_params(workdir)


def test_a_run_writes_checkpoint_and_metrics(finished):
    workdir, result = finished
    assert result["step"] == result["steps"] == 5 and not result["stopped"]
    rows = read_metrics(workdir / "metrics.csv")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["validation_loss"] == pytest.approx(result["validation_loss"])
    assert list((workdir / "tensorboard").iterdir())
    meta = checkpoints.read_meta(workdir)
    assert meta.run["step"] == 5 and meta.run["run"]["seed"] == 0


def test_a_finished_run_is_not_trained_again_wherever_its_data_lies(data, finished, tmp_path):
    workdir, _ = finished
    before = params_of(workdir)
    (tmp_path / "moved").symlink_to(data)
    assert loop.train(run_config(tmp_path / "moved"), workdir)["step"] == 5
    for name, value in params_of(workdir).items():
        np.testing.assert_array_equal(value, before[name])
    assert len(read_metrics(workdir / "metrics.csv")) == 5


@pytest.mark.parametrize(
    ("number", "owner", "moment", "step"),
    [(signal.SIGTERM, loop.MetricsWriter, "write", 2), (signal.SIGINT, loop.Validation, "_loss", 5)],
    ids=["between validations", "in a validation"],
)
def test_a_stopped_run_goes_on_to_the_same_bits(data, finished, tmp_path, monkeypatch, number, owner, moment, step):
    whole, _ = finished
    original, calls = getattr(owner, moment), []

    def stop_there(*arguments):
        calls.append(arguments)
        if len(calls) == (2 if moment == "write" else 1):
            os.kill(os.getpid(), number)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, moment, stop_there)
        stopped = loop.train(run_config(data), tmp_path / "run")
    assert stopped["stopped"] and stopped["step"] == step
    assert len(read_metrics(tmp_path / "run" / "metrics.csv")) == min(step, 4)
    found = loop.train(run_config(data), tmp_path / "run")
    assert (found["step"], found["best_step"], found["stopped"]) == (5, 5, False)
    assert checkpoints.find_checkpoint(tmp_path / "run" / "best").name == "5"
    ours = params_of(tmp_path / "run")
    for name, value in params_of(whole).items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    kept, expected = (read_metrics(w / "metrics.csv") for w in (tmp_path / "run", whole))
    names = ("step", "loss", "validation_loss")
    assert [[r.get(n) for n in names] for r in kept] == [[r.get(n) for n in names] for r in expected]


@pytest.fixture
def fewer_records(data):
    """One training record less for the test, as if it had been taken out between two starts."""
    file = data / "train.json"
    text = file.read_text()
    records = json.loads(text)
    file.write_text(json.dumps(records[:-1]))
    yield len(records) - 1
    file.write_text(text)


def test_changed_data_is_refused_on_resume_unless_it_is_accepted(data, finished, fewer_records, tmp_path, capsys):
    workdir, _ = finished
    shutil.copytree(workdir, tmp_path / "run")
    changed = (
        rf"training questions was {fewer_records + 1}, is {fewer_records}; .*training tokens [(]digest[)] was '\w+'"
    )
    with pytest.raises(loop.RunError, match=rf"{changed}.*go on knowingly with --config.accept_changed_data=True"):
        loop.train(run_config(data), tmp_path / "run")
    assert loop.train(run_config(data, accept_changed_data=True), tmp_path / "run")["step"] == 5
    printed = capsys.readouterr().out
    assert f"training questions was {fewer_records + 1}, is {fewer_records}" in printed
    assert re.search(r"its 5 steps are \d\.\d\d passes over the \d+ rows of now, and the run ends at step 5", printed)


def test_a_run_that_changed_data_leaves_no_step_is_refused_though_accepted(tmp_path):
    """275 records of which 20 are left after step 13."""
    facts = {"training questions": 20}
    this = types.SimpleNamespace(
        facts=facts, rows=[range(4)], steps=2, workdir="run", settings={"batch_rows": 4, "accept_changed_data": True}
    )
    meta = checkpoints.Meta(TINY, run={"facts": {"training questions": 275}})
    stands = (
        "its 13 steps are 13.00 passes over the 4 rows of now, and the run ends at step 2; use another work directory$"
    )
    with pytest.raises(loop.RunError, match=rf"training questions was 275, is 20.*{stands}"):
        loop._check_data(this, 13, meta)
    # Older checkpoints know nothing, or less, of their data.
    for known in ({}, {"facts": None}, {"facts": {"training questions": 20}}):
        this.facts = facts | {"training pictures (digest)": "1f"}
        loop._check_data(this, 13, dataclasses.replace(meta, run=known))


def test_other_settings_are_refused_on_resume(data, finished):
    workdir, _ = finished
    with work_directory(workdir), pytest.raises(loop.RunError, match="is in use by another run"):
        loop.train(run_config(data), workdir)
    with pytest.raises(loop.RunError, match=r"other settings \(batch_rows was 8, is 16\)"):
        loop.train(run_config(data, batch_rows=16), workdir)


@pytest.fixture
def compilations(monkeypatch):
    """A function to be called before a run; its list then holds, for every program compiled, how many steps were written."""
    found, written = [], [0]
    write = loop.MetricsWriter.write

    def note(self, step, values):
        written[0] = step
        write(self, step, values)

    def count(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            found[-1].append(written[0])

    def begin():
        found.append([])
        written[0] = 0
        return found[-1]

    begin()
    monkeypatch.setattr(loop.MetricsWriter, "write", note)
    jax.monitoring.register_event_duration_secs_listener(count)
    yield begin
    jax.monitoring.unregister_event_duration_listener(count)


def test_stages_follow_each_other_and_freeze_what_they_say(data, finished, tmp_path, compilations):
    workdir, _ = finished
    captions = {
        "captions": {
            "format": "captions",
            "root": str(data),
            "annotations": "train_captions.json",
            "images": "train/images",
        }
    }
    previous = workdir
    for name in ("connector_alignment", "refiner_alignment", "sft"):
        run = run_config(data, stage=name, init_from=str(previous), tokenizer="", steps=5, validation_sources={})
        if name == "connector_alignment":
            run["data"] = {**run["data"], "sources": captions, "row_pictures": 2}
        compiled = compilations()
        loop.train(run, tmp_path / name)
        assert compiled and max(compiled) < 2, f"{name} compiled after step 2"
        before, after = params_of(previous), params_of(tmp_path / name)
        trained = set(STAGES[name].trained(after))
        for parameter, value in after.items():
            changed = not np.array_equal(value, before[parameter])
            assert changed == (parameter in trained), f"{name}: {parameter}"
        previous = tmp_path / name
    trained = load(previous)
    assert trained.tokenizer.vocab_size == VOCAB
    seen = trained.tokenizer.format.trained_on
    assert seen.objects.startswith("pallet") and seen.notice("Far from the car?", 0)
    # What a run began with may be gone, and nothing but its own checkpoint is read again.
    shutil.rmtree(tmp_path / "refiner_alignment")
    assert loop.train(run, tmp_path / "sft")["step"] == 5


@pytest.mark.slow
def test_a_run_ends_after_its_epochs_with_the_rates_of_all(data, tmp_path):
    changes = {"steps": 0, "epochs": 4.0, "validation_sources": {}}
    whole = loop.train(run_config(data, **changes), tmp_path / "whole")
    part = loop.train(run_config(data, stop_epochs=1.5, **changes), tmp_path / "part")
    assert part["step"] == part["steps"] < whole["step"] and not part["stopped"]
    rows, expected = (read_metrics(tmp_path / name / "metrics.csv") for name in ("part", "whole"))
    assert [row["lr_all"] for row in rows] == [row["lr_all"] for row in expected[: len(rows)]]
    # It can be taken on.
    assert loop.train(run_config(data, **changes), tmp_path / "part")["step"] == whole["step"]


def test_mixing_by_weight(data, tmp_path):
    run = run_config(data, stage="mixed", steps=2, validation_sources={})
    sources = {
        "questions": default.warehouse(str(data), "train"),
        "regions": default.warehouse(str(data), "train", "train_regions.json"),
    }
    run["data"] = {**run["data"], "sources": sources, "weights": {"questions": 0.5, "regions": 0.5}}
    stage = dataclasses.replace(STAGES["mixed"], after=())
    assert loop.train(run, tmp_path / "mixed", stage=stage)["step"] == 2


def test_a_tokenizer_of_another_size_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setitem(
        PRESETS,
        "tiny",
        TINY.replace(decoder=DecoderConfig(width=32, mlp_width=64, heads=2, kv_heads=1, layers=1, vocab_size=600)),
    )
    with pytest.raises(loop.RunError, match=f"tokenizer has {VOCAB} tokens, the model 600"):
        loop.train(run_config(data), tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_the_run(data, tmp_path):
    run = run_config(data)
    run["optimizer"] = {**run["optimizer"], "peaks": {"all": 1e30}}
    with pytest.raises(loop.RunError, match="the loss is (nan|inf) .* at step") as error:
        loop.train(run, tmp_path / "run")
    found = json.loads((tmp_path / "run" / loop.BAD_STEP).read_text())
    assert str(tmp_path / "run" / loop.BAD_STEP) in str(error.value)
    assert found["loss"] in ("nan", "inf") and list(found["records"]) == [str(found["step"])]
    known = {q.id for source in run["data"]["sources"].values() for p in read_source(source) for q in p.questions}
    (ids,) = found["records"].values()
    assert ids and known.issuperset(ids)


def truncate_a_picture(data, folder):
    """A copy of the warehouse in which one training picture is cut short; returns its name."""
    shutil.copytree(data, folder)
    picture = sorted((folder / "train" / "images").iterdir())[0]
    picture.write_bytes(picture.read_bytes()[:200])
    return picture.name


def test_a_truncated_picture_stops_the_run_and_is_named(data, tmp_path):
    name = truncate_a_picture(data, tmp_path / "data")
    with pytest.raises(DataError, match=f"record '[0-9a-f]+' and .*: .*{name}") as error:
        loop.train(run_config(tmp_path / "data"), tmp_path / "run")
    assert "\n" not in str(error.value)


def test_a_picture_that_several_processes_read_is_never_left_out(data, tmp_path, monkeypatch):
    """One of them may be able to read it."""
    name = truncate_a_picture(data, tmp_path / "data")
    run = run_config(tmp_path / "data")
    run["data"] = {**run["data"], "on_bad_record": "report"}
    monkeypatch.setattr(sharding, "is_replicated", lambda mesh: True)
    made = loop.Run(run, tmp_path / "run", None, None)
    with pytest.raises(DataError, match=name):
        made.rows[0].batch(range(len(made.rows[0])))
    assert made.validation.rows[0].bad.policy == "error"


def test_a_run_makes_logits_for_the_answers_of_its_fullest_row(data, tmp_path):
    made = loop.Run(run_config(data), tmp_path / "run", None, None)
    answers = [int((packed.batch([i])["targets"] >= 0).sum()) for packed in made.rows for i in range(len(packed))]
    assert max(answers) <= made.compute.answers < max(answers) + 64
    assert made.compute.answers < made.shape.tokens


def test_processes_agree_on_what_is_computed_again(data, tmp_path, monkeypatch):
    """Devices of other hosts may have less memory; with other programs the processes would wait for each other for ever."""
    run = run_config(data)
    run["model"] = {**run["model"], "remat": "auto"}
    assert loop.Run(run, tmp_path / "alone", None, None).compute.remat == "none"
    monkeypatch.setattr(loop, "gather", lambda value: [value, "full"], raising=False)
    assert loop.Run(run, tmp_path / "run", None, None).compute.remat == "full"


def test_a_truncated_picture_is_reported_and_left_out_under_that_policy(data, tmp_path, capsys):
    name = truncate_a_picture(data, tmp_path / "data")
    run = run_config(tmp_path / "data", validation_sources={})
    run["data"] = {**run["data"], "on_bad_record": "report"}
    assert loop.train(run, tmp_path / "run")["step"] == 5
    assert name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "data_settings", "message"),
    [
        ({"seed": -1}, {}, "config.seed is -1, it must be a number from 0"),
        ({"keep": 0}, {}, "config.keep is 0, it must be a number at least 1"),
        ({"steps": 0, "epochs": 0.0}, {}, "config.steps and config.epochs are both 0"),
        ({}, {"on_bad_record": "foo"}, "config.data.on_bad_record 'foo' is not one of error, report"),
        ({}, {"sources": {"a": {"format": "foo"}}}, "config.data.sources: data format 'foo' is not one of"),
        ({}, {"sources": {}}, "config.data.sources: no question that can be used"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(data, tmp_path, settings, data_settings, message):
    run = run_config(data, **settings)
    run["data"].update(data_settings)
    with pytest.raises(loop.RunError, match=message):
        loop.train(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("row_tokens", [384, 0])
def test_a_source_without_questions_is_refused(data, tmp_path, row_tokens):
    (data / "empty.json").write_text("[]")
    run = run_config(data)
    run["data"]["row_tokens"] = row_tokens
    run["data"]["sources"] = {"questions": default.warehouse(str(data), "train", "empty.json")}
    with pytest.raises(loop.RunError, match="config.data.sources: no question that can be used"):
        loop.train(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_attention_that_does_not_take_the_dtype_is_refused_before_data_is_read(data, tmp_path, monkeypatch):
    run = run_config(data)
    run["model"]["attention"] = "cudnn"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(loop, "read_rows", lambda *_, **__: pytest.fail("data was read"))
    with pytest.raises(loop.RunError, match="cudnn attention computes in bfloat16 only, not in float32"):
        loop.train(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_ends_at_the_step_after_its_folder_was_replaced(data, tmp_path, monkeypatch):
    write, written = loop.MetricsWriter.write, []

    def write_and_replace(self, step, values):
        write(self, step, values)
        written.append(step)
        if step == 2:
            shutil.copytree(tmp_path / "run", tmp_path / "copy")
            shutil.rmtree(tmp_path / "run")
            (tmp_path / "copy").rename(tmp_path / "run")

    monkeypatch.setattr(loop.MetricsWriter, "write", write_and_replace)
    with pytest.raises(loop.RunError, match="run was removed during the run"):
        loop.train(run_config(data, validation_sources={}), tmp_path / "run")
    assert written == [1, 2]


def test_every_step_of_a_run_is_watched(data, tmp_path, monkeypatch, capfd):
    jit = loop.jit_train_step

    def jit_slowly(*arguments):
        step = jit(*arguments)

        def hang_here(*inputs):
            time.sleep(0.3)
            return step(*inputs)

        return hang_here

    monkeypatch.setattr(loop, "jit_train_step", jit_slowly)
    monkeypatch.setattr(watchdog, "FIRST", 0.01)  # seconds
    loop.train(run_config(data, validation_sources={}, steps=2), tmp_path / "run")
    said = capfd.readouterr().err
    assert re.findall(": step ([0-9]) takes more than", said) == ["1", "2"]
    assert "in hang_here" in said
