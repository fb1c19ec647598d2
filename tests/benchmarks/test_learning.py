"""Time to quality: both sides train the same from the same start, what is done stays done, and seconds are read off curves rightly."""

from __future__ import annotations

import csv
import json

import pytest

from benchmarks import learning
from benchmarks.as_released import AsReleased, micro_batches
from benchmarks.learning import PACKED, PYTORCH, Clock
from benchmarks.shared import TOKENIZER
from convert.folders import jax_to_torch, torch_to_jax
from convert.torch_model import load_torch, random_torch
from smolrgpt_jax.config import DecoderConfig, SmolRGPTConfig, VisionConfig
from smolrgpt_jax.data.batches import Order, batch_questions
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.training.data import read_rows, read_start
from smolrgpt_jax.training.stages import STAGES
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import ensure_warehouse

CONFIG = SmolRGPTConfig(
    vision=VisionConfig(width=16, mlp_width=32, heads=2, layers=1, patch_size=16, image_size=64),
    decoder=DecoderConfig(width=16, mlp_width=32, heads=2, kv_heads=1, layers=1, vocab_size=640),
)
SCENES = {"scenes": 6, "val_scenes": 1, "test_scenes": 2, "width": 96, "height": 54}


def curve(*points: tuple[float, float]) -> learning.Curve:
    return [(seconds, dict.fromkeys(learning.SCORES, s1)) for seconds, s1 in points]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """As the demo's, in bfloat16."""
    root = tmp_path_factory.mktemp("learning")
    random_torch(CONFIG, 0).save(root / "random")
    torch_to_jax(root / "random", root / "jax", tokenizer=TOKENIZER)
    jax_to_torch(root / "jax", root / "backbone", dtype="BF16")
    return root / "backbone"


@pytest.fixture
def tiny(monkeypatch):
    """Few scenes, few steps of a row per device, no processes of their own."""
    whole = learning.settings

    def settings(*given):
        run = whole(*given)
        return run | {"steps": 4, "batch_rows": 8, "save_every": 2 if run["stage"] == "sft" else 4, "log_every": 1}

    monkeypatch.setattr(learning, "settings", settings)
    monkeypatch.setattr(learning.demo, "WAREHOUSE", learning.demo.WAREHOUSE | SCENES)
    monkeypatch.setattr(learning, "apart", lambda run, *given: run(*given))


@pytest.mark.parametrize(
    ("bar", "expected"),
    [(60, 150.0), (70, 200.0), (75, 350.0), (90, None)],
    ids=["between two", "at one", "after a fall", "never"],
)
def test_seconds_to_a_bar_are_read_off_straight_lines(bar, expected):
    assert learning.reached(curve((100, 50), (200, 70), (300, 65), (400, 85)), bar) == expected


def test_a_curve_that_begins_above_the_bar_has_its_first_seconds():
    assert learning.reached(curve((100, 65), (200, 90)), 60) == 100


def test_the_table_has_times_their_ratio_and_s1_when_ours_ends():
    ours, theirs = curve((100, 50), (200, 70), (300, 80)), curve((200, 40), (400, 60), (600, 72))
    rows = learning.table({5: {PACKED: ours, PYTORCH: theirs}}).splitlines()[2:]
    last = ", ".join(["80.0"] * 5), ", ".join(["72.0"] * 5)
    assert rows == [
        f"| {PACKED} | 5 | 150 | 200 | 250 | 80.0 | {last[0]} |",
        f"| {PYTORCH} | 5 | 400 | 567 | not within 600 | 50.0 | {last[1]} |",
        "| ratio of times | 5 | 2.7 x | 2.8 x | more than 2.4 x |  |  |",
    ]


def test_the_clock_stands_for_checkpoints_and_goes_on_from_the_one_that_is_left(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(learning.time, "monotonic", lambda: now[0])
    file, clock = tmp_path / "clock.json", Clock(tmp_path / "clock.json")
    for step, seconds in ((1, 10.0), (2, 25.0)):
        now[0] += 10
        with clock.standing(step):
            now[0] += 100
        with clock.standing():
            now[0] += 100
        now[0] += 5
        assert json.loads(file.read_text())[str(step)] == seconds
    later = Clock(file, 1)
    now[0] += 7
    with later.standing(2):
        pass
    assert json.loads(file.read_text()) == {"1": 10.0, "2": 17.0}


def test_every_question_of_a_source_comes_once_before_one_comes_again():
    sources = [([("a", n) for n in range(6)], 1.5), ([("b", n) for n in range(5)], 1.0)]
    steps = [learning.drawn(sources, 3, step) for step in range(8)]
    assert {len(step) for step in steps} == {2, 3}
    first = [item for step in steps for item in step if item[0] == "a"]
    assert set(first[:6]) == set(first[6:12]) == set(sources[0][0]) and first[:6] != first[6:12]
    assert steps == [learning.drawn(sources, 3, step) for step in range(8)]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["stage1", "stage3"])
def test_both_sides_have_the_same_loss_before_any_update(tmp_path, tiny, backbone, stage):
    """The loss of our first step, and of PyTorch on the questions that were in its rows."""
    ensure_warehouse(tmp_path / "data", WarehouseConfig(seed=0, **learning.demo.WAREHOUSE))
    learning.write_starts(backbone, tmp_path / "start", tmp_path / "start_torch", seed=1)
    run = learning.settings(tmp_path, stage, "demo", 0, tmp_path / "start", 1)
    run |= {"steps": 1, "question_balance": 0.0}
    learning.train_packed(tmp_path / "packed", run)
    with open(tmp_path / "packed" / "metrics.csv", newline="") as file:
        ours = float(next(csv.DictReader(file))["loss"])

    of_stage, data = STAGES[run["stage"]], run["data"]
    start = read_start(run | {"init_from": str(tmp_path / "start_torch")}, of_stage)
    rows, pictures = read_rows(data, data["sources"], start, BadRecords(), regions=of_stage.regions)
    order = Order(run["batch_rows"], run["seed"], list(data["weights"].values()) or None)
    known = {question.id: (picture, question) for picture in pictures for question in picture.questions}
    asked = [known[name] for name in batch_questions(rows, order, 0)]
    training = AsReleased(load_torch(tmp_path / "start_torch"), of_stage, 10)
    batches = micro_batches(training.model, start.tokenizer, asked, 3, data["row_tokens"], of_stage.regions)
    assert training.step(0, list(batches)) == pytest.approx(ours, rel=1e-5)


@pytest.mark.slow
def test_both_sides_run_to_the_end_and_nothing_is_done_twice(tmp_path, tiny, backbone, monkeypatch):
    command = ["--workdir", str(tmp_path / "work"), "--seeds", "1", "--seconds", "1", "--checkpoints", "2"]
    command += ["--backbone", str(backbone), "--out", str(tmp_path / "found.md")]
    learning.main(command)
    lines = (tmp_path / "found.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {PACKED}", f"| {PYTORCH}", "| ratio of times"]
    assert "First answers over training time" in (tmp_path / "found.svg").read_text()
    seed = tmp_path / "work" / "seed1"
    assert learning.kept(seed / "packed" / "stage3") == [2, 4]
    theirs = seed / "pytorch" / "stage3"
    assert learning.newest(theirs) == json.loads((theirs / learning.PLAN).read_text())["steps"]
    written = {file: file.stat().st_mtime_ns for file in seed.rglob("*") if file.is_file()}

    for name in ("train_packed", "train_as_released", "evaluate"):
        monkeypatch.setattr(learning, name, lambda *given: pytest.fail("done again"))
    learning.main(command)
    assert (tmp_path / "found.md").read_text().splitlines() == lines
    assert written == {file: file.stat().st_mtime_ns for file in seed.rglob("*") if file.is_file()}
    with pytest.raises(SystemExit, match="was begun with other options"):
        learning.main([*command, "--checkpoints", "3"])


@pytest.mark.slow
def test_pytorch_goes_on_from_its_newest_checkpoint_to_the_same_weights(tmp_path, tiny, backbone, monkeypatch):
    ensure_warehouse(tmp_path / "data", WarehouseConfig(seed=0, **learning.demo.WAREHOUSE))
    run = learning.settings(tmp_path, "stage3", "demo", 0, backbone, 2)
    for name in ("whole", "interrupted"):
        (tmp_path / name).mkdir()
        (tmp_path / name / learning.PLAN).write_text('{"steps": 4}')
    learning.train_as_released(tmp_path / "whole", run, 1.0, 0, 2)
    step = AsReleased.step
    with monkeypatch.context() as patched, pytest.raises(InterruptedError):
        patched.setattr(AsReleased, "step", interrupted_at(3, step))
        learning.train_as_released(tmp_path / "interrupted", run, 1.0, 0, 2)
    assert learning.kept(tmp_path / "interrupted") == [2]
    learning.train_as_released(tmp_path / "interrupted", run, 1.0, 0, 2)
    weights = [tmp_path / name / "checkpoints" / "4" / "model.safetensors" for name in ("whole", "interrupted")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def interrupted_at(last: int, step):
    def run(training, number, batches):
        if number == last:
            raise InterruptedError
        return step(training, number, batches)

    return run


@pytest.mark.slow
def test_pytorch_trains_in_bfloat16_too(tmp_path, tiny, backbone):
    ensure_warehouse(tmp_path / "data", WarehouseConfig(seed=0, **learning.demo.WAREHOUSE))
    run = learning.settings(tmp_path, "stage3", "full", 0, backbone, 2)
    assert run["model"]["compute_dtype"] == "bfloat16" and run["data"]["row_tokens"] == 768
    stage = STAGES["sft"]
    start = read_start(run, stage)
    (asked, _), *_ = learning.read_questions(run, start, stage)
    losses = []
    for dtype in ("bfloat16", "float32"):
        training = AsReleased(load_torch(backbone), stage, 10, dtype=dtype)
        batches = micro_batches(training.model, start.tokenizer, asked[:4], 2, 400)
        losses.append(training.step(0, list(batches)))
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_the_plot_reaches_as_far_as_the_seconds(tmp_path):
    def curve(*seconds):
        return [(at, {"S1": 50.0 + number}) for number, at in enumerate(seconds)]

    learning.plot({0: {PACKED: curve(100, 300), PYTORCH: curve(150, 600)}}, tmp_path / "learning.svg")
    drawn = (tmp_path / "learning.svg").read_text()
    assert all(f">{seconds}</text>" in drawn for seconds in (0, 200, 400, 600))
