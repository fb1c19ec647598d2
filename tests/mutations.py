"""Damage as files of people have it, drawn by hypothesis: JSON values of any kind in the place of others, and files that are
cut, flipped, empty, gone, in another encoding, or something else altogether.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st

MANY = 60
ODD_TEXTS = ("", " ", "\0", "\ud800", "a\nb", "nan", "1e999", "~" * 5000, "C:\\x.png")
TEXTS = st.one_of(
    st.sampled_from(
        [
            *ODD_TEXTS,
            "..",
            "../broken.png",
            "/etc/passwd",
            "<mask>",
            "<image>",
            "<mask> <depth>",
            "left",
            "distance",
            "mcq",
            "good.png",
        ]
    ),
    st.text(st.characters(), max_size=8),  # lone surrogates included
)
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 12, 10**30, -(10**400), 0.5, -0.0, 1e308, float("inf"), float("nan")]),
    st.integers(),
    st.floats(),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=2)),
    max_leaves=5,
)
DROP = object()
GONE, FOLDER = "gone", "a folder"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 91\n"
PAGE = b"<!DOCTYPE html>\n<html>log in</html>"


def numbers_of_examples(few: int) -> pytest.MarkDecorator:
    """A test with a few examples, and a slow one with MANY."""
    return pytest.mark.parametrize("examples", [few, pytest.param(MANY, marks=pytest.mark.slow)])


def reproducible(examples: int) -> settings:
    """The same examples in every run, nothing kept."""
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None)


def places(value: Any) -> list[tuple]:
    """Paths to everything inside a JSON value, outermost first."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path for key in keys for path in [(key,), *((key, *rest) for rest in places(value[key]))]]


@st.composite
def broken(draw: st.DrawFn, record: dict, most: int = 3) -> Any:
    """The record with one to `most` of its parts dropped or replaced; now and then no record at all."""
    if draw(st.integers(0, 19)) == 19:
        return draw(VALUES)
    record = copy.deepcopy(record)
    for _ in range(draw(st.integers(1, most))):
        *path, key = draw(st.sampled_from(places(record) or [("id",)]))
        parent = record
        for step in path:
            parent = parent[step]
        value = draw(st.one_of(st.just(DROP), VALUES))
        if value is not DROP:
            parent[key] = value
        elif key in parent or isinstance(parent, list):
            del parent[key]
    return record


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes | str:
    """What may become of a file: its bytes in part or changed, other ones, GONE or FOLDER.

    The bytes of a text are changed to such as no text holds: a letter for another is nothing that anyone could see.
    """
    text = content[:1] in (b"{", b"[")
    kinds = [GONE, FOLDER, b"", POINTER, PAGE, bytes(len(content)), "cut", "flipped"]
    if text:
        kinds += [content.decode().encode(name) for name in ("utf-16", "utf-8-sig", "utf-32-le")] + [
            b"null",
            b"[]",
            b"{}",
        ]
    kind = draw(st.sampled_from(kinds))
    if kind not in ("cut", "flipped"):
        return kind
    place = draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        return content[:place]
    flipped = bytearray(content)
    flipped[place] = draw(st.sampled_from(b"\0\xff")) if text else flipped[place] ^ (1 << draw(st.integers(0, 7)))
    return bytes(flipped)


def changed_copy(source: Path, copy: Path, name: str, content: bytes | str) -> Path:
    """A folder as its source but for one file, in whose place lies what `damaged` drew."""
    shutil.copytree(source, copy, copy_function=os.link)
    path = copy / name
    path.unlink()
    if content == FOLDER:
        path.mkdir()
    elif content != GONE:
        path.write_bytes(content)
    return copy


def files_of(folder: Path) -> dict[str, bytes]:
    """{relative name: content} of a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@st.composite
def changed(draw: st.DrawFn, files: Mapping[str, bytes]) -> tuple[str, bytes | str]:
    """One of the files with what becomes of it: a JSON file's values are broken as often as its bytes."""
    name = draw(st.sampled_from(sorted(files)))
    content = files[name]
    if content[:1] in (b"{", b"[") and draw(st.booleans()):
        return name, json.dumps(draw(broken(json.loads(content), most=1))).encode()
    return name, draw(damaged(content))
