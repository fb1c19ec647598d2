from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest

from smolrgpt_jax.data.sources.archives import unpack_chunks
from smolrgpt_jax.errors import DataError


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


def everything(folder):
    return sorted(f.name for f in folder.iterdir())


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


def test_a_pointer_in_place_of_an_archive_is_named(tmp_path):
    (tmp_path / "chunk_000.tar.gz").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match="chunk_000.tar.gz .* .a Git LFS pointer, .*`git lfs pull` fetches it"):
        unpack_chunks(tmp_path)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("../escaped.png", {}),
        ("a/../../escaped.png", {}),
        ("link.png", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("link.png", {"type": tarfile.LNKTYPE, "linkname": "../outside"}),
        ("inner.png", {"type": tarfile.SYMTYPE, "linkname": "000001.png"}),
        ("inner.png", {"type": tarfile.LNKTYPE, "linkname": "000001.png"}),
        ("pipe.png", {"type": tarfile.FIFOTYPE}),
        ("disk.png", {"type": tarfile.BLKTYPE}),
        ("null.png", {"type": tarfile.CHRTYPE}),
        ("/absolute.png", {}),
        ("a/chunk_001.tar.gz", {}),
        (".chunk_001.tar.gz.unpacked", {}),
    ],
)
def test_entries_that_leave_the_folder_are_refused(tmp_path, name, changes):
    folder = tmp_path / "images"
    folder.mkdir()
    write(folder / "chunk_000.tar.gz", {name: b"" if changes else b"x"}, **changes)
    with pytest.raises(DataError, match="chunk_000.tar.gz: entry"):
        unpack_chunks(folder)
    assert everything(folder) == ["chunk_000.tar.gz"] and everything(tmp_path) == ["images"]


def test_files_of_one_name_do_not_replace_each_other(tmp_path):
    write(tmp_path / "chunk_000.tar.gz", {"a/1.png": b"one", "b/1.png": b"two"})
    with pytest.raises(DataError, match=r"entry 'b/1.png' would replace another file"):
        unpack_chunks(tmp_path)
    assert everything(tmp_path) == ["chunk_000.tar.gz"]
    write(tmp_path / "chunk_000.tar.gz", {"a/1.png": b"one"})
    write(tmp_path / "chunk_001.tar.gz", {"1.png": b"two"})
    with pytest.raises(DataError, match=r"chunk_001.tar.gz: entry '1.png' would replace another file"):
        unpack_chunks(tmp_path)
    assert (tmp_path / "1.png").read_bytes() == b"one"


@pytest.mark.parametrize("place", range(0, 3000, 311))
def test_no_byte_of_a_damaged_archive_is_unpacked(tmp_path, place):
    archive = tmp_path / "chunk_000.tar.gz"
    noise = np.random.default_rng(0).bytes(3000)  # does not compress: the damage lies in the picture
    write(archive, {"1.png": noise, "2.png": b"two"})
    content = bytearray(archive.read_bytes())
    content[40 + place] ^= 0x40
    archive.write_bytes(content)
    with pytest.raises(DataError, match="chunk_000.tar.gz is damaged"):
        unpack_chunks(tmp_path)
    assert everything(tmp_path) == ["chunk_000.tar.gz"]
    content[40 + place] ^= 0x40
    archive.write_bytes(content)
    assert unpack_chunks(tmp_path) == 1 and (tmp_path / "1.png").read_bytes() == noise


def test_what_a_killed_unpacking_left_is_used_or_removed(tmp_path):
    write(tmp_path / "chunk_000.tar.gz", {"1.png": b"one", "2.png": b"two"})
    (tmp_path / "1.png").write_bytes(b"one")
    (tmp_path / ".chunk_000.tar.gz.partial").mkdir()
    (tmp_path / ".chunk_000.tar.gz.partial/2.png").write_bytes(b"t")
    assert unpack_chunks(tmp_path) == 1
    assert everything(tmp_path) == [".chunk_000.tar.gz.unpacked", "1.png", "2.png", "chunk_000.tar.gz"]
    assert (tmp_path / "2.png").read_bytes() == b"two"


def test_a_folder_without_archives_is_left_alone(tmp_path):
    assert unpack_chunks(tmp_path) == 0 and not names(tmp_path)
