"""Unpacks the archives that the warehouse data set's pictures come in."""

import filecmp
import shutil
import tarfile
import zlib
from pathlib import Path

from tqdm import tqdm

from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import stand_in


def unpack_chunks(folder: Path) -> int:
    """Unpacks every `chunk_*.tar.gz` of a folder into it, once; returns how many were unpacked now.

    An archive is done when `.<its name>.unpacked` lies beside it, so an interrupted run goes on. Its entries can be neither
    links or devices nor paths that climb out of the folder (tarfile's "data" filter); pictures may stand in a folder of the
    archive, which is left away.

    Raises DataError: an archive is damaged or holds an entry that leaves the folder or would replace another file; names both.
    """
    archives = sorted(folder.glob("chunk_*.tar.gz"))
    marks = {archive: folder / f".{archive.name}.unpacked" for archive in archives}
    todo = [archive for archive in archives if not marks[archive].exists()]
    for archive in tqdm(todo, desc=f"unpacking {folder}", disable=not todo):
        _unpack(archive, folder)
        marks[archive].touch()
    return len(todo)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpacks into a folder aside, and moves the files when the whole archive has proved undamaged."""
    aside = folder / f".{archive.name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if not member.isdir():
                    _unpack_entry(tar, member, aside, f"{archive}: entry {member.name!r}")
            # tarfile stops before gzip's checksum, and takes a damaged header for the end of the archive.
            while tar.fileobj.read(1 << 20):
                pass
        for file in sorted(aside.iterdir()):
            target = folder / file.name
            # An equal file is one that an interrupted run had moved already.
            if target.exists() and not filecmp.cmp(file, target, shallow=False):
                raise DataError(f"{archive}: entry {file.name!r} would replace another file of this name")
            file.replace(target)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{archive} is damaged or cannot be unpacked ({stand_in(archive) or error})") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _unpack_entry(tar: tarfile.TarFile, member: tarfile.TarInfo, aside: Path, where: str) -> None:
    try:
        safe = tarfile.data_filter(member, str(aside))
    except tarfile.FilterError as error:
        raise DataError(f"{where} leaves the folder ({error})") from error
    name = Path(safe.name).name
    if member.name.startswith("/") or not name:
        raise DataError(f"{where} leaves the folder")
    if not safe.isfile():
        raise DataError(f"{where} is not a plain file")
    if name.startswith((".chunk_", "chunk_")):
        raise DataError(f"{where} has the name of an archive")
    if (aside / name).exists():
        raise DataError(f"{where} would replace another file of this name")
    tar.extract(safe.replace(name=name, deep=False), aside, filter="data")
