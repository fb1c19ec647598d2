"""Unpacks the archives that the warehouse data set's pictures come in."""

from __future__ import annotations

import tarfile
from pathlib import Path

from tqdm import tqdm

from smolrgpt_jax.data.records import DataError


def unpack_chunks(folder: Path) -> int:
    """Unpacks every ``chunk_*.tar.gz`` of a folder into it, once.

    An archive is done when ``.<its name>.unpacked`` lies beside it, so an interrupted run goes on. Its entries can be neither links
    out of the folder nor paths that climb out of it (tarfile's "data" filter); pictures may stand in a folder of the archive,
    which is left away.

    Returns:
      The number of archives unpacked now; 0 where there are none.

    Raises:
      DataError: an archive is damaged or holds an entry that leaves the folder; names both.
    """
    archives = sorted(folder.glob("chunk_*.tar.gz"))
    done = 0
    for archive in tqdm(archives, desc=f"unpacking {folder}", disable=not archives):
        mark = folder / f".{archive.name}.unpacked"
        if mark.exists():
            continue
        _unpack(archive, folder)
        mark.touch()
        done += 1
    return done


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.isdir():
                    continue
                try:
                    safe = tarfile.data_filter(member, str(folder))
                except tarfile.FilterError as error:
                    raise DataError(
                        f"{archive}: entry {member.name!r} leaves the folder ({error})"
                    ) from error
                if not safe.isfile():
                    raise DataError(f"{archive}: entry {member.name!r} is not a plain file")
                flat = safe.replace(name=Path(safe.name).name, deep=False)
                partial = flat.replace(name=f".{flat.name}.partial", deep=False)
                tar.extract(partial, folder, filter="data")
                (folder / partial.name).replace(folder / flat.name)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{archive} is damaged or cannot be unpacked ({error})") from error
