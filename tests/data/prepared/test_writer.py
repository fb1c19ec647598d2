"""Prepared data gives the batches that the raw folder gives, survives being killed, and opens as a TFDS data set."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image, ImageOps

from launch import prepare_data
from smolrgpt_jax.data import masks
from smolrgpt_jax.data.batches import PackedRows, data_facts
from smolrgpt_jax.data.prepared import writer as prepare_module
from smolrgpt_jax.data.prepared.reader import load_stored, read_prepared, settings
from smolrgpt_jax.data.prepared.writer import PrepareConfig, prepare
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.rows import FileLoader
from smolrgpt_jax.data.sources.formats import read_source, read_warehouse
from smolrgpt_jax.errors import DataError

SMALL = PrepareConfig(image_size=16, mask_grid=8, pictures_per_shard=3)


@pytest.fixture
def prepared(filled):
    out = filled.root / "prepared"
    summary = prepare({"train": read_warehouse(filled.root, "train")}, out, SMALL, workers=1)
    return out, summary


def digests(folder) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())}


def test_the_summary_counts_what_was_written(prepared, filled):
    out, summary = prepared
    pictures = read_warehouse(filled.root, "train")
    found = summary["train"]
    assert found["pictures"] == 7 and found["shards"] == 3
    assert found["questions"] == sum(len(p.questions) for p in pictures) == found["categories"]["distance"]
    assert found["masks"] == sum(len({r for q in p.questions for r in q.regions}) for p in pictures)
    assert not out.with_name("prepared.partial").exists()


def test_questions_come_back_as_they_were(prepared, filled):
    out, _ = prepared
    for raw, ours in zip(read_warehouse(filled.root, "train"), read_prepared(out, "train"), strict=True):
        assert ours.id == raw.id
        for a, b in zip(raw.questions, ours.questions, strict=True):
            assert (a.id, a.category, a.turns, a.normalized_answer) == (b.id, b.category, b.turns, b.normalized_answer)
            assert len(set(a.regions)) == len(set(b.regions)) and len(a.regions) == len(b.regions)


def test_workers_are_not_sent_the_texts(prepared, tokenizer, shape):
    pictures = read_prepared(prepared[0], "train")
    text = pictures[0].questions[0].prompt.encode()
    sent = pickle.dumps(PackedRows(pictures, tokenizer, shape)._pictures)
    assert text in pickle.dumps(pictures) and text not in sent and pictures[0].questions[0].id.encode() in sent


def without_regions(picture):
    asked = (dataclasses.replace(q, prompt="What is this?", regions=()) for q in picture.questions)
    return dataclasses.replace(picture, questions=tuple(asked))


@pytest.mark.parametrize("captions", [0, 2, 7], ids="{} pictures without regions".format)
def test_batches_equal_those_of_the_raw_folder(filled, tokenizer, shape, captions):
    pictures = read_warehouse(filled.root, "train")
    pictures = [*map(without_regions, pictures[:captions]), *pictures[captions:]]
    prepare({"train": pictures}, filled.root / "prepared", SMALL, workers=1)
    source = {"format": "prepared", "root": str(filled.root / "prepared"), "split": "train"}
    raw = PackedRows(pictures, tokenizer, shape)
    ours = PackedRows(read_source(source), tokenizer, shape, load=FileLoader(shape, cached_pictures=2))
    assert ours.plan == raw.plan
    a, b = raw.batch(range(len(raw))), ours.batch(range(len(raw)))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_facts_of_prepared_data_see_other_pixels(prepared, filled, tokenizer, shape):
    def facts(folder):
        return data_facts([PackedRows(read_prepared(folder, "train"), tokenizer, shape)], "training")

    pictures = read_warehouse(filled.root, "train")
    with Image.open(pictures[0].image) as picture:
        ImageOps.invert(picture.convert("RGB")).save(pictures[0].image)
    prepare({"train": pictures}, filled.root / "inverted", SMALL, workers=1)
    before, after = facts(prepared[0]), facts(filled.root / "inverted")
    assert [name for name in before if before[name] != after[name]] == ["training pictures (digest)"]
    assert facts(shutil.copytree(prepared[0], filled.root / "copy")) == before


def test_conversations_keep_their_turns(tmp_path, filled):
    pictures = read_warehouse(filled.root, "train")
    question = pictures[0].questions[0]
    talk = prepare_module.dataclasses.replace(question, earlier=(("What?", "That."),))
    picture = prepare_module.dataclasses.replace(pictures[0], questions=(talk,))
    prepare({"train": [picture]}, tmp_path / "out", SMALL, workers=1)
    (found,) = read_prepared(tmp_path / "out", "train")
    assert found.questions[0].turns == talk.turns


def test_tfds_opens_it(prepared, filled):
    builder = tfds.builder_from_directory(prepared[0])
    assert builder.info.splits["train"].num_examples == 7
    example = builder.as_data_source("train")[5]
    assert example["image"].shape == (16, 16, 3)
    questions = json.loads(example["questions"])
    assert [q["id"] for q in questions] == ["5-0"]


def test_any_number_of_workers_gives_the_same_bytes(prepared, filled):
    other = filled.root / "parallel"
    prepare({"train": read_warehouse(filled.root, "train")}, other, SMALL, workers=2)
    assert digests(other) == digests(prepared[0])


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(prepared, filled, monkeypatch):
    pictures = {"train": read_warehouse(filled.root, "train")}
    again = filled.root / "again"
    whole = prepare_module._write_shard
    written = []

    def stop_at_the_second(job, strict):
        if written:
            (job.file.with_name(f".123.{job.file.name}")).write_bytes(b"half a shard")
            raise KeyboardInterrupt
        written.append(job)
        whole(job, strict)

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "_write_shard", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            prepare(pictures, again, SMALL, workers=1)
    assert not again.exists()
    with pytest.raises(DataError, match="begun with other data or settings"):
        prepare(pictures, again, PrepareConfig(16, 8, "submission", 3), workers=1)
    *others, changed = pictures["train"]
    question = prepare_module.dataclasses.replace(changed.questions[0], answer="It is 9 meters.")
    changed = prepare_module.dataclasses.replace(changed, questions=(question, *changed.questions[1:]))
    with pytest.raises(DataError, match="begun with other data or settings"):
        prepare({"train": [*others, changed]}, again, SMALL, workers=1)
    # The same words about other pictures, and about other regions.
    first, second, *more = pictures["train"]
    repainted = prepare_module.dataclasses.replace(first, image=first.depth)
    regions = [masks.encode(1 - masks.decode(region)) for region in first.questions[0].regions]
    asked = prepare_module.dataclasses.replace(first.questions[0], regions=tuple(regions))
    remasked = prepare_module.dataclasses.replace(first, questions=(asked, *first.questions[1:]))
    for odd in (repainted, remasked):
        with pytest.raises(DataError, match="begun with other data or settings"):
            prepare({"train": [odd, second, *more]}, again, SMALL, workers=1)
    prepare(pictures, again, SMALL, workers=1)
    assert digests(again) == digests(prepared[0])


def test_a_killed_command_goes_on_and_gives_the_same_bytes(prepared, filled):
    out = filled.root / "killed"
    process = start(filled, out, "--workers", "1")
    wait_for(lambda: list(filled.root.glob("killed.partial/*.array_record-*")), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = subprocess.run(process.args, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "7 pictures" in done.stdout
    reference = filled.root / "reference"
    single = PrepareConfig(16, 8, "training", 1)
    prepare({"train": read_warehouse(filled.root, "train")}, reference, single, workers=1)
    assert digests(out) == digests(reference)


def start(filled, out, *arguments):
    """The command, with a process group of its own."""
    command = [sys.executable, "-m", "launch.prepare_data", "--source", "warehouse", "--root", str(filled.root)]
    command += ["--out", str(out), "--splits", "train", "--image_size", "16", "--mask_grid", "8"]
    return subprocess.Popen(
        [*command, "--pictures_per_shard", "1", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for(condition, process, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def group_is_gone(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
def test_a_command_killed_at_random_moments_gives_the_same_bytes(folder):
    records, shards = [], 240  # so many that a kill that comes late still finds some to be written
    for picture in range(shards):
        folder.add_picture(f"{picture:06d}")
        records += [folder.record(f"{picture}-{n}", f"{picture:06d}.png", regions=range(n, n + 2)) for n in range(3)]
    folder.write(records)
    archive(folder.root / "train/images")
    archive(folder.root / "train/depths")
    archives = {file: file.read_bytes() for file in folder.root.rglob("chunk_*.tar.gz")}
    reference, out = folder.root / "reference", folder.root / "killed"

    begun = time.monotonic()
    process = start(folder, reference, "--workers", "2")
    wait_for(reference.with_name("reference.partial").exists, process)
    before = time.monotonic() - begun
    assert process.wait() == 0
    pictures = {file: file.read_bytes() for file in folder.root.glob("train/*/*.png")}
    assert len(pictures) == 2 * shards
    for file in folder.root.glob("train/*/*"):
        if file not in archives:
            file.unlink()

    def written():
        return len(list(folder.root.glob("killed.partial/*array_record-*-of-*.json")))

    rng = np.random.default_rng(0)
    process = start(folder, out, "--workers", "2")
    time.sleep(rng.uniform(0.6, 1) * before)  # about when the archives are unpacked
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    found = []
    for least in sorted(rng.integers(0, 90, 5)):
        if out.exists():  # it was done before the last kill came
            break
        process = start(folder, out, "--workers", "2")
        wait_for(lambda: out.exists() or (out.with_name("killed.partial").exists() and written() >= least), process)
        time.sleep(rng.uniform(0, 0.1))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        found.append(written())
    assert any(0 < number < shards for number in found)
    if not out.exists():
        assert start(folder, out, "--workers", "2").wait() == 0
    assert digests(out) == digests(reference)
    assert not out.with_name("killed.partial").exists()
    assert {file: file.read_bytes() for file in folder.root.glob("train/*/*.png")} == pictures
    assert {file: file.read_bytes() for file in archives} == archives


def archive(images):
    """Moves the pictures of a folder into two archives there, as they are published."""
    files = sorted(images.iterdir())
    for number in range(2):
        with tarfile.open(images / f"chunk_{number:03d}.tar.gz", "w:gz") as tar:
            for file in files[number::2]:
                tar.add(file, f"images/{file.name}")
                file.unlink()


@pytest.mark.slow
def test_processes_of_a_killed_command_end_with_it(filled):
    """Alone, they would go on writing into the folder of the run that is started next."""
    out = filled.root / "killed"
    process = start(filled, out, "--workers", "2")
    wait_for(lambda: list(filled.root.glob("killed.partial/*.array_record-*")), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while not group_is_gone(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_bad_pictures_stop_the_run_or_are_reported(filled):
    pictures = {"train": read_warehouse(filled.root, "train")}
    file = filled.root / "train/images/000002.png"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match=r"record '2-0'.*000002.png is truncated or corrupt"):
        prepare(pictures, filled.root / "strict", SMALL, workers=1)
    assert not (filled.root / "strict").exists()
    bad = BadRecords("report")
    summary = prepare(pictures, filled.root / "lenient", SMALL, workers=2, on_bad_record=bad)
    assert len(bad.reasons) == 1 and summary["train"]["pictures"] == 6
    assert bad.reasons[0].startswith("record '2-0' and 2 more of its picture: ")
    found = read_prepared(filled.root / "lenient", "train")
    assert [p.id for p in found] == [p.id for i, p in enumerate(pictures["train"]) if i != 2]
    assert load_stored(found[2]).image.shape == (16, 16, 3)  # its place moved up with its questions


def cut(file):
    file.write_bytes(file.read_bytes()[:200])


def blind(file):
    with Image.open(file) as picture:
        deep = np.zeros(picture.size[::-1], np.uint16)
    Image.fromarray(deep).save(file)


def colour(file):
    with Image.open(file) as picture:
        Image.merge("RGB", [picture, picture, Image.new("L", picture.size, 9)]).save(file)


@pytest.mark.parametrize(
    ("name", "spoil", "reason"),
    [
        ("images/000001.png", cut, "is truncated or corrupt"),
        ("images/000001.png", lambda file: file.unlink(), "is missing"),
        ("depths/000001_depth.png", cut, "is truncated or corrupt"),
        ("depths/000001_depth.png", lambda file: file.unlink(), "is missing"),
        ("depths/000001_depth.png", blind, "holds no measurement"),
        ("depths/000001_depth.png", colour, "is coloured, expected grey"),
    ],
)
def test_spoilt_files_are_named_with_their_records(filled, name, spoil, reason):
    pictures = {"train": read_warehouse(filled.root, "train")}
    file = filled.root / "train" / name
    spoil(file)
    message = f"record '1-0' and 1 more of its picture: .*{file} {reason}"
    with pytest.raises(DataError, match=message):
        prepare(pictures, filled.root / "strict", SMALL, workers=1)
    bad = BadRecords("report")
    prepare(pictures, filled.root / "lenient", SMALL, workers=1, on_bad_record=bad)
    (found,) = bad.reasons
    assert re.match(message, found)
    kept = [
        question.id for picture in read_prepared(filled.root / "lenient", "train") for question in picture.questions
    ]
    assert kept == [q.id for p in pictures["train"] for q in p.questions if not q.id.startswith("1-")]


def test_the_command_stops_with_a_sentence_or_reports(filled, monkeypatch, capsys):
    def command(name, policy):
        arguments = ["--source", "warehouse", "--root", str(filled.root), "--out", str(filled.root / name)]
        arguments += ["--splits", "train", "--image_size", "16", "--mask_grid", "8", "--workers", "1"]
        monkeypatch.setattr(sys, "argv", ["prepare_data", *arguments, "--on_bad_record", policy])
        prepare_data.main()

    (filled.root / "train/depths/000003_depth.png").unlink()
    with pytest.raises(SystemExit, match=r"^error: .*train.json: record '3-0' .*000003_depth.png is missing$"):
        command("strict", "error")
    command("lenient", "report")
    printed = capsys.readouterr().out
    assert "4 bad records left out" in printed and "6 pictures" in printed
    filled.write([filled.record("a", "000009.png")])
    with pytest.raises(SystemExit, match="no usable question of train, the first reason: .*record 'a'"):
        command("nothing", "report")
    assert sorted(f.name for f in filled.root.iterdir()) == ["lenient", "train", "train.json"]


def test_what_does_not_fit_is_one_sentence(prepared, filled, tokenizer, shape, tmp_path):
    out, _ = prepared
    with pytest.raises(DataError, match="exists already"):
        prepare({"train": []}, out, SMALL)
    with pytest.raises(DataError, match="is not UTF-8"):
        prepare({"train": []}, tmp_path / "d\udce4ta", SMALL)
    assert not list(tmp_path.glob("*.partial"))
    with pytest.raises(DataError, match="has no prepared split 'val'"):
        read_prepared(out, "val")
    with pytest.raises(DataError, match="is no prepared data set"):
        read_prepared(tmp_path / "nowhere", "train")
    odd = tmp_path / "odd"
    odd.mkdir()
    for content in ("[]", '{"image_size": 16}', "{"):
        (odd / "prepared.json").write_text(content)
        settings.cache_clear()
        with pytest.raises(DataError, match="odd is no prepared data set"):
            read_prepared(odd, "train")
    larger = prepare_module.dataclasses.replace(shape, image_size=32)
    rows = PackedRows(read_prepared(out, "train"), tokenizer, larger)
    with pytest.raises(DataError, match="was prepared with image_size 16, this run needs 32"):
        rows.batch([0])
    rows = PackedRows(read_prepared(out, "train"), tokenizer, shape, load=FileLoader(shape, depth_mode="submission"))
    with pytest.raises(DataError, match="depth_mode"):
        rows.batch([0])
    with pytest.raises(ValueError, match="must be even"):
        PrepareConfig(mask_grid=7)


@pytest.fixture
def prepare_command(filled, monkeypatch):
    def run(*more):
        arguments = ["--source", "warehouse", "--root", str(filled.root), "--out", str(filled.root / "out")]
        arguments += ["--splits", "train", "--image_size", "16", "--mask_grid", "8", "--workers", "1"]
        monkeypatch.setattr(sys, "argv", ["prepare_data", *arguments, *more])
        prepare_data.main()

    return run


def spoil_pixels(picture):
    """Leaves the header, which is all that the reader looks at."""
    picture.write_bytes(picture.read_bytes()[:60])


def test_pictures_that_are_left_out_are_counted_by_their_questions(filled, prepare_command, capsys):
    spoil_pixels(filled.root / "train/images/000001.png")
    lost = sum(
        picture.image.name == "000001.png" and len(picture.questions)
        for picture in read_warehouse(filled.root, "train")
    )
    assert lost > 1
    prepare_command("--on_bad_record", "report")
    assert f"{lost} bad records left out" in capsys.readouterr().out


def test_a_split_without_a_usable_picture_is_an_error_and_leaves_nothing(filled, prepare_command):
    for picture in (filled.root / "train/images").iterdir():
        spoil_pixels(picture)
    with pytest.raises(SystemExit, match="^error: no picture of train can be used, the first reason: record '0-0'"):
        prepare_command("--on_bad_record", "report")
    assert sorted(f.name for f in filled.root.iterdir()) == ["train", "train.json"]


@pytest.mark.parametrize(
    "option, message",
    [
        (("--mask_grid", "0"), "mask_grid is 0, must be at least 1"),
        (("--mask_grid", "-2"), "mask_grid is -2, must be at least 1"),
        (("--workers", "0"), "0 workers are too few"),
        (("--workers", "-2"), "-2 workers are too few"),
    ],
)
def test_sizes_that_make_no_sense_stop_the_command_before_it_writes(filled, prepare_command, option, message):
    with pytest.raises(SystemExit, match=f"^error: {message}$"):
        prepare_command(*option)
    assert sorted(f.name for f in filled.root.iterdir()) == ["train", "train.json"]
