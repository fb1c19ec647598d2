from __future__ import annotations

import io
import tarfile

import pytest

from smolrgpt_jax.data.records import DataError
from smolrgpt_jax.data.sources.archives import unpack_chunks


def write(path, entries, **changes):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in changes.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))


def names(folder):
    return sorted(f.name for f in folder.iterdir() if not f.name.startswith("."))


def test_chunks_are_unpacked_once(tmp_path):
    write(tmp_path / "chunk_000.tar.gz", {"000001.png": b"one", "images/000002.png": b"two"})
    write(tmp_path / "chunk_001.tar.gz", {"000003.png": b"three"})
    assert unpack_chunks(tmp_path) == 2
    assert names(tmp_path)[:3] == ["000001.png", "000002.png", "000003.png"]
    assert (tmp_path / "000002.png").read_bytes() == b"two"
    (tmp_path / "000003.png").unlink()
    assert unpack_chunks(tmp_path) == 0
    assert "000003.png" not in names(tmp_path)


def test_an_interrupted_unpacking_goes_on(tmp_path):
    write(tmp_path / "chunk_000.tar.gz", {"1.png": b"one"})
    whole = (tmp_path / "chunk_000.tar.gz").read_bytes()
    (tmp_path / "chunk_000.tar.gz").write_bytes(whole[:60])
    with pytest.raises(DataError, match="chunk_000.tar.gz is damaged"):
        unpack_chunks(tmp_path)
    assert names(tmp_path) == ["chunk_000.tar.gz"]
    (tmp_path / "chunk_000.tar.gz").write_bytes(whole)
    assert unpack_chunks(tmp_path) == 1


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("../escaped.png", {}),
        ("a/../../escaped.png", {}),
        ("link.png", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("link.png", {"type": tarfile.LNKTYPE, "linkname": "../outside"}),
        ("pipe.png", {"type": tarfile.FIFOTYPE}),
    ],
)
def test_entries_that_leave_the_folder_are_refused(tmp_path, name, changes):
    folder = tmp_path / "images"
    folder.mkdir()
    write(folder / "chunk_000.tar.gz", {name: b"" if changes else b"x"}, **changes)
    with pytest.raises(DataError, match="chunk_000.tar.gz: entry"):
        unpack_chunks(folder)
    assert names(folder) == ["chunk_000.tar.gz"] and names(tmp_path) == ["images"]


def test_a_folder_without_archives_is_left_alone(tmp_path):
    assert unpack_chunks(tmp_path) == 0 and not names(tmp_path)
