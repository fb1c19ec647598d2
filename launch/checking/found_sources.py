"""Which sources lie in a folder: by the names that the formats give their files (docs/data.md)."""

import argparse
import contextlib
import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from smolrgpt_jax.data.prepared.reader import SETTINGS_FILE
from smolrgpt_jax.data.sources.formats import READERS
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import read_json

SPLITS = ("train", "val", "test")
_BEGINNING = 2**16  # bytes of a file, which hold a whole record


@dataclasses.dataclass(frozen=True)
class Found:
    """A source as a run's configuration names it, and what it is for."""

    source: Mapping[str, Any]  # of `read_source`
    side: str  # the split, "train" where none is named; pictures of two sides should differ
    trained: bool = True  # whether it is to be trained on

    @property
    def file(self) -> Path:
        """The annotation file, or the folder where there are several."""
        root, source = Path(self.source["root"]), self.source
        default = inspect.signature(READERS[source["format"]]).parameters.get("annotations")
        if source["format"] == "prepared":
            return root / f"questions-{source.get('split')}.parquet"
        if default is None:
            return root / "data"
        return root / (source.get("annotations") or default.default or f"{source.get('split')}.json")

    @property
    def name(self) -> str:
        """How people are told of it."""
        split = self.source.get("split")
        return f"{self.file.name}/{split}-*" if self.source["format"] == "smolrgpt" and split else self.file.name


def format_of(text: str) -> dict[str, str]:
    """Reads "NAME[,FIELD=VALUE...]", a format and fields of its sources; raises ArgumentTypeError."""
    name, *fields = text.split(",")
    parts = [field.partition("=") for field in fields]
    if name not in READERS or not all(key and mark and value for key, mark, value in parts):
        known = f"NAME[,FIELD=VALUE...] with a NAME of {', '.join(READERS)}"
        raise argparse.ArgumentTypeError(f"{text!r} is not {known}")
    return {"format": name} | {key: value for key, _, value in parts}


def find_sources(root: Path, wanted: Sequence[Mapping[str, str]] = ()) -> list[Found]:
    """The sources of a folder; wanted: formats of `format_of`, those without further fields are looked for.

    Raises DataError where there are none.
    """
    if not root.is_dir():
        raise DataError(f"{root} is {'a file, expected a folder' if root.exists() else 'not there'}")
    found = []
    for given in wanted:
        listed = list(_LOOKERS[given["format"]](root)) if len(given) == 1 else []
        found += listed or [_found(root, **given)]
    if not wanted:
        lookers = [_LOOKERS["prepared"]] if (root / SETTINGS_FILE).exists() else _LOOKERS.values()
        found = [source for look in lookers for source in look(root)]
    if not found:
        other = "--format names format and files, `smolrgpt coco-questions` makes data of annotations of COCO"
        raise DataError(f"{root} holds no data by the names of a format (docs/data.md): {other}")
    return found


def passed_over(root: Path, sources: Sequence[Found]) -> list[Path]:
    """Files of a folder that begin as records do, or lie where those of a format do, and that none of its sources is read from."""
    read = {found.file for found in sources}
    left = [
        file for file in sorted(root.glob("*.json")) if file.is_file() and file not in read and _holds_records(file)
    ]
    splits = {
        found.source["split"] for found in sources if found.source["format"] == "smolrgpt" and "split" in found.source
    }
    if splits:
        left += [file for file in sorted((root / "data").glob("*.parquet")) if not file.name.startswith(tuple(splits))]
    return left


def _holds_records(file: Path) -> bool:
    with open(file, "rb") as stream:
        return b'"conversations"' in stream.read(_BEGINNING).replace(b"\0", b"")  # of UTF-16, too


def _found(root: Path, **fields: str) -> Found:
    """A source, its side read off its split or the name of its file."""
    named = re.search(rf"(?<![a-z])({'|'.join(SPLITS)})(?![a-z])", fields.get("annotations") or "")
    said = fields.get("split") or (named[0] if named else "")
    side = said or ("test" if fields["format"] == "bench" else "train")
    return Found({**fields, "root": str(root)}, side, side.startswith("train"))


def _prepared(root: Path) -> Iterator[Found]:
    splits = {file.stem.removeprefix("questions-") for file in root.glob("questions-*.parquet")}
    with contextlib.suppress(DataError, AttributeError):  # what cannot be read is told when the questions are
        splits |= read_json(root / SETTINGS_FILE, dict).get("splits", {}).keys()
    for split in sorted(splits):
        yield _found(root, format="prepared", split=split)


def _smolrgpt(root: Path) -> Iterator[Found]:
    names = [file.name for file in sorted((root / "data").glob("*.parquet"))]
    splits = [split for split in SPLITS if any(name.startswith(split) for name in names)]
    for split in splits:
        yield _found(root, format="smolrgpt", split=split)
    if names and not splits:
        yield _found(root, format="smolrgpt")


def _warehouse(root: Path) -> Iterator[Found]:
    """Files called as a folder with images, or as that and more: train.json, train_regions.json, train_captions.json."""
    splits = {folder.parent.name for folder in root.glob("*/images")} | set(SPLITS)
    for file in sorted(root.glob("*.json")):
        split = max((s for s in splits if f"{file.stem}_".startswith(f"{s}_")), key=len, default=None)
        if split is None or _named(file):
            continue
        if file.stem == f"{split}_captions":
            made = _found(root, format="captions", annotations=file.name, images=f"{split}/images")
            yield dataclasses.replace(made, side=split, trained=split.startswith("train"))
        else:
            yield _found(root, format="warehouse", split=split, annotations=file.name)


# What files of these formats are called, beginning or end.
_NAMES = {
    "captions": re.compile(r"chat\.json$"),
    "osd": re.compile(r"convs\.json$"),
    "bench": re.compile("SpatialRGPT-Bench"),
}


def _named(file: Path) -> bool:
    return any(name.search(file.name) for name in _NAMES.values())


def _by_name(kind: str, root: Path) -> Iterator[Found]:
    for file in sorted(root.glob("*.json")):
        if _NAMES[kind].search(file.name):
            yield _found(root, format=kind, annotations=file.name)


_LOOKERS = {
    "warehouse": _warehouse,
    "captions": lambda root: _by_name("captions", root),
    "osd": lambda root: _by_name("osd", root),
    "smolrgpt": _smolrgpt,
    "prepared": _prepared,
    "bench": lambda root: _by_name("bench", root),
}
