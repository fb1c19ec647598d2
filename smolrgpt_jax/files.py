"""Files and folders that appear whole or not at all, JSON files, and models of the Hugging Face hub."""

import errno
import glob
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from smolrgpt_jax.errors import CheckpointError, DataError

JSON_KINDS = {
    dict: "a JSON object",
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def as_path(name: str | Path, flag: str = "") -> Path:
    """The path that people mean by what they type: no character has a meaning but "~" at its beginning, a home folder.

    ".." is followed as the file system does, a link before it included, since Orbax takes no path with it. Raises DataError, which
    begins with `flag`, for what names no file: nothing, or a URL.
    """
    text = os.path.expanduser(name)
    if not str(text) or "\0" in str(text):
        raise DataError(f"{flag} {str(name)!r} is no path".lstrip())
    if re.match("[a-zA-Z][a-zA-Z0-9+.-]*://", str(text)):
        raise DataError(f"{flag} {name} is a URL; mount the bucket and give the folder".lstrip())
    path = Path(text)
    if ".." in path.parts:
        last = max(i for i, part in enumerate(path.parts, 1) if part == "..")
        return Path(os.path.realpath(Path(*path.parts[:last])), *path.parts[last:])
    # "./~" is a folder of that name, also when it is asked about again.
    return path.absolute() if path.parts and path.parts[0].startswith("~") else path


def sync(path: str | Path) -> None:
    """Has a file, or which names a folder holds, on the disk when it returns: what is only written, a machine may lose."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # a file system that does not know it
            raise
    finally:
        os.close(descriptor)


@contextmanager
def file_aside(path: str | Path) -> Iterator[Path]:
    """A name beside `path` to write a file under, renamed to `path` at the end; missing parent folders are made.

    The name keeps the suffix. On any failure, of the machine too, the file is removed and what `path` held stays; raises as
    `check_out`.
    """
    check_out(path)
    path = Path(os.path.realpath(path))  # the file that a link stands for is written, the link stays
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{os.urandom(4).hex()}.{path.name}")  # hosts that share a disk share process numbers
    try:
        yield aside
        sync(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a UTF-8 text file, whole or not at all."""
    with file_aside(path) as aside:
        aside.write_text(text, encoding="utf-8", errors="replace")  # names of files may be of no encoding


def write_json(path: str | Path, value: object) -> None:
    """Writes a value as JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_list(path: str | Path, records: Iterable[dict[str, Any]]) -> None:
    """Writes a JSON list, one record per line, without holding all of it."""
    with file_aside(path) as aside, open(aside, "w", encoding="utf-8") as file:
        file.write("[")
        file.writelines((",\n" if i else "\n") + json.dumps(record) for i, record in enumerate(records))
        file.write("\n]\n")


def link(source: Path, target: Path) -> None:
    """Makes a file appear at a second place, as a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


# How files begin that lie in place of another, and what that means.
_REFUSAL = r"\s*(\{.(error|detail|message)|(entry )?not found|access |forbidden|unauthorized)"
_WEB_PAGE = "a web page, not the file: the download was answered by a login or an error"
_STAND_INS = (
    ("version https://git-lfs", "a Git LFS pointer, not the file itself: `git lfs pull` fetches it"),
    (r"(?s)\s*<(?!.*svg)(?:!doctype|html|\?xml)", _WEB_PAGE),
    (_REFUSAL, "a server's refusal, not the file"),
    ("PK\x03\x04|\x80[\x02-\x05]", "a pickle, which is never loaded: save it as safetensors first"),
)


def stand_in(path: str | Path | BinaryIO) -> str | None:
    """What a file is that cannot be read as what its name says: a Git LFS pointer, a web page, a pickle, empty; None: something else."""
    if isinstance(path, str | Path):
        with open(path, "rb") as file:
            return stand_in(file)
    path.seek(0)
    start = path.read(200).decode("latin-1")
    found = (what for pattern, what in _STAND_INS if re.match(pattern, start, re.IGNORECASE))
    return next(found, None) if start else "empty"


def read_json(path: str | Path, kind: type | None = None, failure: type[ValueError] = DataError) -> Any:
    """What a JSON file holds, with or without a byte order mark; `kind`: `dict` or `list`, where it must be one.

    Raises `failure` naming the file if it cannot be read or holds something else.
    """
    try:
        value = json.loads(Path(path).read_bytes())  # of UTF-8, -16 or -32, as its first bytes say
    except OSError as error:
        raise failure(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise failure(f"{path}: is not valid JSON ({stand_in(path) or error})") from error
    if kind is not None and not isinstance(value, kind):
        expected = "a list of records" if kind is list else JSON_KINDS[dict]
        coco = isinstance(value, dict) and {"images", "annotations"} <= value.keys()
        held = "annotations of COCO (docs/own_data.md makes records of them)" if coco else JSON_KINDS[type(value)]
        raise failure(f"{path}: holds {held}, expected {expected}")
    return value


def model_folder(name: str, what: str, patterns: Sequence[str]) -> Path:
    """The folder of a local path, or of a model on the Hugging Face hub, whose files of these patterns are fetched.

    what: the model is, for messages. A name that exists, starts with "." or "/", lies in a folder that exists or has more separators
    than the hub's "owner/model" is a path and never looked up. Raises DataError if there is no such folder, or the hub cannot be
    reached.
    """
    path = as_path(name)
    if path.is_dir():
        return path
    nested = path.parent.exists() and path.parent != Path(".")
    if path.exists() or nested or name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise DataError(f"{what} {name!r} cannot be loaded (there is no such folder)")
    from huggingface_hub import snapshot_download

    try:
        # One look at the hub, where transformers would ask for file after file and for each several times.
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # many classes, of the hub's client and of what it stands on
        reason = " ".join(str(error).split())[:200]
        neither = "neither a folder here nor a model that can be fetched from the Hugging Face hub"
        raise DataError(f"{what} {name!r}: {neither} ({reason})") from error


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to write into that becomes `folder` at the end.

    On any failure it is removed, with the parent folders made for it; so is what a killed process left of the same destination.
    Raises CheckpointError if `folder` exists, or for an OSError while writing.
    """
    folder = as_path(folder).absolute()
    if os.path.lexists(folder):
        raise CheckpointError(f"{folder} exists already; nothing was written")
    made = [parent for parent in folder.parents if not parent.exists()]
    start = f".{folder.name}.partial-{socket.gethostname()}-"
    aside = folder.with_name(f"{start}{os.getpid()}")
    done = False
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f"{glob.escape(start)}*"):
            if not _alive(left.name.removeprefix(start)):
                shutil.rmtree(left, ignore_errors=True)
        aside.mkdir()
        yield aside
        aside.rename(folder)
        done = True
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(f"{folder} could not be written, nothing was left behind: {reason}") from error
    finally:
        if not done:
            shutil.rmtree(aside, ignore_errors=True)
            for parent in made:
                if parent.is_dir() and not any(parent.iterdir()):
                    parent.rmdir()


def check_out(path: str | Path, folder: bool = False) -> None:
    """Raises DataError where no file, or folder, can be written to `path`; for the time before hours of work."""
    place = os.path.realpath(path)  # what a link stands for is written
    if os.path.islink(place):
        raise DataError(f"{path} is a link that leads to itself")
    if os.path.exists(place) and not (os.path.isdir if folder else os.path.isfile)(place):
        raise DataError(f"{path} exists and is not a {'folder' if folder else 'regular file'}")
    # Written beside it under a longer name and renamed, even where it exists. What is missing will be made.
    beside = next((parent for parent in Path(place).parents if os.path.lexists(parent)), Path(place))
    for where in (beside, place) if os.path.isdir(place) else (beside,):
        try:
            with tempfile.NamedTemporaryFile(prefix=f".{os.path.basename(place)}.", dir=where):
                pass
        except OSError as error:
            raise DataError(f"{path} cannot be written in {where} ({error.strerror})") from error


def check_empty(folder: Path) -> None:
    """Raises DataError for a path that exists and is not an empty folder."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"{folder} exists already and is not an empty folder; nothing was written")


@contextmanager
def results_folder(out: str | Path, own: Collection[str] = ()) -> Iterator[Path]:
    """An empty folder to write results into; at the end its files are moved to the folder `out`.

    Files of the same names in `out` are replaced, and those of `own`, names that the command gives its results, are removed where
    this run wrote none: they are another run's. Others stay. After an error `out` is as before. Raises as `check_out`.
    """
    check_out(out, folder=True)
    out = Path(os.path.realpath(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        yield Path(folder)
        out.mkdir(exist_ok=True)
        made = {file.name: file for file in Path(folder).iterdir()}
        for name in {*own, *made}:
            if (out / name).is_dir():
                raise DataError(f"{out / name} is a folder where a file of the results belongs")
        for name in {*own} - {*made}:
            (out / name).unlink(missing_ok=True)
        for name, file in made.items():
            file.replace(out / name)


def _alive(process: str) -> bool:
    """Whether this machine runs a process of that number; anything that is no number counts as alive."""
    try:
        os.kill(int(process), 0)
    except (ValueError, OverflowError, OSError) as error:
        return not isinstance(error, ProcessLookupError)
    return True
