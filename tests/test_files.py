"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from smolrgpt_jax import files
from smolrgpt_jax.errors import DataError, told


def test_pictures_are_copied_where_there_are_no_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no hard links here")

    monkeypatch.setattr(files.os, "link", refuse)
    (tmp_path / "a").write_bytes(b"picture")
    files.link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"picture"


def test_a_list_has_a_line_for_every_record(tmp_path):
    for records in ([], [{"a": 1}], [{"a": 1}, {"b": [2]}]):
        files.write_list(tmp_path / "list.json", iter(records))
        text = (tmp_path / "list.json").read_text()
        assert json.loads(text) == records and len(text.splitlines()) == len(records) + 2


def test_json_is_read_with_any_byte_order_mark(tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        (tmp_path / "a.json").write_bytes('{"é": 1}'.encode(encoding))
        assert files.read_json(tmp_path / "a.json", dict) == {"é": 1}


@pytest.mark.parametrize("there", [True, False])
def test_what_a_link_stands_for_is_written(tmp_path, there):
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "target.json"
    if there:
        target.write_text("old")
    (tmp_path / "link.json").symlink_to(target)
    files.write_json(tmp_path / "link.json", {"a": 1})
    assert (tmp_path / "link.json").is_symlink() and json.loads(target.read_text()) == {"a": 1}
    assert [file.name for file in target.parent.iterdir()] == ["target.json"]


def test_a_name_of_no_encoding_does_not_keep_a_text_from_being_written(tmp_path):
    files.write_text(tmp_path / "report.html", "of d\udce4ta, é")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == "of d?ta, é"


def test_only_files_are_replaced_by_files(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "into the file").symlink_to(tmp_path / "file" / "below")
    cases = {
        "/dev/full": "exists and is not a regular file",
        tmp_path: "exists and is not a regular file",
        tmp_path / "file" / "below": r"cannot be written in .*file \(Not a directory\)",
        tmp_path / "into the file": r"into the file cannot be written in .*file \(Not a directory\)",
        # Which its rights allow.
        "/proc/there": "cannot be written in /proc",
        tmp_path / "loop": "is a link that leads to itself",
        tmp_path / ("a" * 300): "File name too long",
        tmp_path / ("a" * 250): "File name too long",
        "/": "exists and is not a regular file",
    }
    for out, message in cases.items():
        with pytest.raises(DataError, match=message):
            files.write_text(out, "lost")
    assert not Path("/dev/full").is_file() and (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize(
    ("module", "kind"),
    [(f"eval.{name}", "regular file") for name in ("predict", "score_warehouse", "compare", "router")]
    + [(f"eval.{name}", "folder") for name in ("warehouse", "spatialrgpt_bench", "samples", "normalize", "captions")]
    + [
        ("launch.warehouse_gallery", "regular file"),
        ("launch.train_tokenizer", "folder"),
        ("eval.learning_curves", "folder"),
    ],
)
def test_commands_look_at_their_output_before_they_work(module, kind, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    out = tmp_path if kind == "regular file" else tmp_path / "file"
    monkeypatch.setattr("sys.argv", [module, "--out", str(out)])
    with pytest.raises(SystemExit, match=f"^error: {out} exists and is not a {kind}$"):
        importlib.import_module(module).main()


def test_where_a_folder_can_be_is_known_beforehand(tmp_path):
    for name, target in (("loop", "loop"), ("nowhere yet", "made later"), ("there", tmp_path)):
        (tmp_path / name).symlink_to(target)
    for out in ("/", tmp_path, tmp_path / "nowhere yet", tmp_path / "there", tmp_path / "new" / "below"):
        files.check_out(out, folder=True)
    for out in (tmp_path / "loop", tmp_path / "loop" / "below", "/proc/new", tmp_path / ("a" * 250)):
        with pytest.raises(DataError):
            files.check_out(out, folder=True)
    assert {path.name for path in tmp_path.iterdir()} == {"loop", "nowhere yet", "there"}


def test_results_go_where_a_link_leads(tmp_path):
    (tmp_path / "out").symlink_to("made later")
    with files.results_folder(tmp_path / "out") as aside:
        (aside / "a.json").write_text("1")
    assert (tmp_path / "made later" / "a.json").read_text() == "1" and (tmp_path / "out").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"out", "made later"}


def test_a_folder_in_the_place_of_a_result_keeps_all_as_it_was(tmp_path):
    out = tmp_path / "out"
    (out / "b.html").mkdir(parents=True)
    (out / "a.json").write_text("old")
    (out / "own.json").write_text("old")
    refused = pytest.raises(DataError, match="out/b.html is a folder where a file of the results belongs")
    with refused, files.results_folder(out, own=("a.json", "own.json")) as aside:
        for name in ("a.json", "b.html"):
            (aside / name).write_text("new")
    assert [(out / name).read_text() for name in ("a.json", "own.json")] == ["old", "old"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("buffering", [-1, 0])
def test_a_reader_that_goes_away_ends_nothing(monkeypatch, buffering):
    streams = {}
    for name in ("stdout", "stderr"):
        reader, writer = os.pipe()
        os.close(reader)
        streams[name] = io.TextIOWrapper(open(writer, "wb", buffering=buffering), write_through=not buffering)
        monkeypatch.setattr(sys, name, streams[name])
    with told():
        for _ in range(3):
            print("x" * 100_000, flush=True)
            print("y" * 100_000, file=sys.stderr, flush=True)


def test_a_command_whose_output_is_closed_goes_on(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    with told():
        print("lost")
        print("lost", file=sys.stderr, flush=True)


@pytest.mark.parametrize(
    ("error", "end"),
    [(MemoryError("for [9, 9]"), SystemExit), (RuntimeError("RESOURCE_EXHAUSTED: Out of memory\n0x1"), SystemExit)]
    + [(RuntimeError("a mistake of ours"), RuntimeError)],
)
def test_too_little_memory_is_one_sentence(error, end):
    with pytest.raises(end) as stop, told():
        raise error
    assert "\n" not in str(stop.value) and str(stop.value).startswith("error: there") == (end is SystemExit)


def test_a_terminated_command_ends_as_an_interrupted_one(tmp_path, capsys):
    """What it was writing is removed, and the shell is told of the signal."""
    with pytest.raises(SystemExit) as stop, told("interrupted; half is kept"):
        with files.new_folder(tmp_path / "new"):
            signal.raise_signal(signal.SIGTERM)
    assert stop.value.code == 128 + signal.SIGTERM and list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == "interrupted; half is kept\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_of_its_own_is_left_to_a_command():
    received = []
    signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        with told():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert received == [signal.SIGTERM]


def test_what_the_terminal_cannot_write_is_replaced(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, "latin-1"))
    with told():
        print("2 – 3 é")
    assert written.getvalue().decode("latin-1").strip() == "2 ? 3 é"


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    """Hosts that share a disk may share a process number as well."""
    with files.file_aside(tmp_path / "file.txt") as one:
        with files.file_aside(tmp_path / "file.txt") as other:
            one.write_text("one")
            other.write_text("other")
        assert (tmp_path / "file.txt").read_text() == "other"
    assert (tmp_path / "file.txt").read_text() == "one" and len(list(tmp_path.iterdir())) == 1
