"""Unpacks the archives that the warehouse data set's pictures come in, and tells of others that lie there still packed."""

import contextlib
import filecmp
import itertools
import shlex
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from PIL import Image
from tqdm import tqdm

from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import stand_in

_CHUNKS = "chunk_*.tar.gz"
_ARCHIVES = ("*.zip", "*.tar", "*.tar.*", "*.tgz")
_LOOKED_AT = 1000  # entries of an archive


def still_packed(pictures: Path, beside: Path) -> str:
    """What follows "a picture is missing": an archive that has to be unpacked first, and how; "" where none lies there.

    pictures, beside: the folder of the pictures and that of their records; archives are looked for there and in the pictures'
    parent. One whose pictures are of another folder, or lie there unpacked already, is passed over.
    """
    folders = {pictures, pictures.parent, beside}
    for archive in sorted({file for folder in folders for name in _ARCHIVES for file in folder.glob(name)}):
        named = archive.parent == pictures or pictures.name.rstrip("s") in archive.name
        for entry in _pictures_in(archive):
            inside = entry.parent.parts
            # Folders of the archive that become those in which the pictures are looked for.
            fit = next((n for n in range(len(inside), 0, -1) if inside[:n] == pictures.parts[-n:]), 0)
            if fit or named:
                break
        else:
            continue
        target = pictures.parents[fit - 1] if fit else pictures
        if (target / entry).exists() or (pictures / entry.name).exists():
            continue
        made = "" if target.is_dir() else f"mkdir -p {_quoted(target)} && "
        how = f"{made}tar -xf {_quoted(archive)} -C {_quoted(target)}"
        if archive.suffix == ".zip":
            how = f"unzip -n {_quoted(archive)} -d {_quoted(target)}"
        elif archive.parent == pictures and archive.match(_CHUNKS) and beside == pictures.parent.parent:
            how = f"smolrgpt prepare --source warehouse --root {_quoted(beside)} --splits {pictures.parent.name} --out FOLDER"
        return f": {archive} lies there still packed, unpack it by `{how}`"
    return ""


def _pictures_in(archive: Path) -> Iterator[PurePosixPath]:
    """The names of pictures among an archive's first entries, as far as it can be read."""
    suffixes = Image.registered_extensions()
    with contextlib.suppress(tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error):
        with zipfile.ZipFile(archive) if archive.suffix == ".zip" else tarfile.open(archive) as packed:
            names = packed.namelist() if isinstance(packed, zipfile.ZipFile) else (member.name for member in packed)
            for path in map(PurePosixPath, itertools.islice(names, _LOOKED_AT)):
                if path.suffix.lower() in suffixes and ".." not in path.parts:
                    yield path


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def unpack_chunks(folder: Path) -> int:
    """Unpacks every `chunk_*.tar.gz` of a folder into it, once; returns how many were unpacked now.

    An archive is done when `.<its name>.unpacked` lies beside it, so an interrupted run goes on. Its entries can be neither
    links or devices nor paths that climb out of the folder (tarfile's "data" filter); pictures may stand in a folder of the
    archive, which is left away.

    Raises DataError: an archive is damaged or holds an entry that leaves the folder or would replace another file; names both.
    """
    archives = sorted(folder.glob(_CHUNKS))
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
