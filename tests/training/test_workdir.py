"""The folder of a run: held by one run, on a disk that can do what checkpoints need, and watched."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket

import pytest

from smolrgpt_jax.errors import RunError
from smolrgpt_jax.training.workdir import LOCK, work_directory


def refuse(number: int):
    def refused(*_, **__):
        raise OSError(number, os.strerror(number))

    return refused


def test_a_second_run_is_refused_while_the_first_lives(tmp_path):
    folder = tmp_path / "a" / "run"
    with work_directory(folder):
        (folder / "metrics.csv").touch()
        held = f"{folder} is in use by another run .process {os.getpid()} on {socket.gethostname()}."
        with pytest.raises(RunError, match=held), work_directory(folder):
            pass
        with work_directory(folder, first=False):  # the other processes of the run
            pass
    with work_directory(folder):
        assert (folder / "metrics.csv").exists()


def test_a_lock_that_a_dead_run_left_holds_nobody_up(tmp_path):
    (tmp_path / LOCK).write_text("process 1 on a machine that is gone")
    with work_directory(tmp_path):
        assert (tmp_path / LOCK).read_text() == f"process {os.getpid()} on {socket.gethostname()}"


def test_a_folder_that_was_made_and_not_written_to_is_removed(tmp_path):
    with pytest.raises(ValueError), work_directory(tmp_path / "a" / "run"):
        raise ValueError
    assert not list(tmp_path.iterdir())


def test_without_locks_a_run_says_so_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOTSUP))
    with work_directory(tmp_path):
        assert "a file system without locks" in capsys.readouterr().out


def test_a_file_system_that_cannot_rename_folders_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "rename", refuse(errno.ENOSYS))
    with pytest.raises(RunError, match="cannot rename folders .Function not implemented.") as error:
        with work_directory(tmp_path / "run"):
            pass
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("remade", [False, True])
def test_a_folder_removed_during_the_run_is_an_error(tmp_path, remade):
    folder = tmp_path / "run"
    with pytest.raises(RunError, match="was removed during the run"), work_directory(folder) as check:
        check()
        shutil.rmtree(folder)
        if remade:
            folder.mkdir()
            (folder / LOCK).touch()
        with pytest.raises(RunError, match="was removed during the run"):
            check()
        raise OSError(errno.ENOENT, "what fails of it")


def test_a_folder_removed_at_the_end_is_an_error_too(tmp_path):
    with pytest.raises(RunError, match="was removed during the run"), work_directory(tmp_path / "run"):
        shutil.rmtree(tmp_path / "run")


def test_a_file_in_the_way_is_one_sentence(tmp_path):
    (tmp_path / "run").touch()
    with (
        pytest.raises(RunError, match="run cannot be a work directory: it is a file"),
        work_directory(tmp_path / "run"),
    ):
        pass
