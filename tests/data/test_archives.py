from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest

from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.sources.archives import unpack_chunks
from smolrgpt_jax.data.sources.formats import read_warehouse
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


@pytest.fixture
def packed(folder):
    """Packs a folder of pictures into an archive in the place of it, its entries with a beginning of their names."""

    def pack(kind: str, archive: str, start: str, keep: bool = False) -> None:
        pictures, file = folder.root / "train" / kind, folder.root / archive
        file.parent.mkdir(parents=True, exist_ok=True)
        entries = {f"{start}{picture.name}": picture.read_bytes() for picture in pictures.glob("*.png")}
        for picture in () if keep else pictures.glob("*.png"):
            picture.unlink()
        if file.suffix == ".zip":
            with zipfile.ZipFile(file, "w") as out:
                for name, content in entries.items():
                    out.writestr(name, content)
        else:
            write(file, entries)
        if not any(pictures.iterdir()):
            pictures.rmdir()

    for name in ("000001", "000002"):
        folder.add_picture(name)
    folder.write([folder.record("a", "000001.png"), folder.record("b", "000002.png")])
    return pack


@pytest.mark.parametrize(
    ("kind", "archive", "start"),
    [
        ("images", "images.zip", ""),
        ("images", "train.zip", "train/images/"),
        ("depths", "train/depths.tar.gz", "./depths/"),
        ("depths", "depths.tgz", "train/depths/"),
        ("images", "train/images/pictures.tar", ""),
    ],
)
def test_pictures_that_are_still_packed_are_told_with_what_to_type(folder, packed, kind, archive, start):
    packed(kind, archive, start)
    with pytest.raises(DataError, match=f"{kind}/000001(_depth)?.png is missing: .*{archive} lies there still") as told:
        read_warehouse(folder.root, "train")
    (typed,) = re.findall("unpack it by `(.*)`", str(told.value))
    if shutil.which("unzip") is None:
        typed = typed.replace("unzip -n", "python3 -m zipfile -e").replace(" -d ", " ")
    subprocess.run(typed, shell=True, check=True)
    assert len(read_warehouse(folder.root, "train")) == 2


def test_chunks_of_the_warehouse_are_unpacked_by_preparing(folder, packed):
    packed("images", "train/images/chunk_000.tar.gz", "images/")
    command = f"smolrgpt prepare --source warehouse --root {folder.root} --splits train --out FOLDER"
    with pytest.raises(DataError, match=f"chunk_000.tar.gz lies there still packed, unpack it by `{command}`"):
        read_warehouse(folder.root, "train")
    unpack_chunks(folder.root / "train/images")
    assert len(read_warehouse(folder.root, "train")) == 2


def test_an_archive_that_was_unpacked_or_holds_no_pictures_is_not_spoken_of(folder, packed):
    packed("images", "images.zip", "images/", keep=True)
    packed("depths", "depths.tgz", "", keep=True)
    (folder.root / "train/notes.zip").write_bytes(b"no archive")
    write(folder.root / "train/texts.tar.gz", {"read.me": b"text"})
    (folder.root / "train/images/000002.png").unlink()
    bad = BadRecords("report")
    assert len(read_warehouse(folder.root, "train", on_bad_record=bad)) == 1
    (reason,) = bad.reasons
    assert reason.endswith("000002.png is missing")
