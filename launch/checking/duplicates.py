"""What occurs twice: pictures by their bytes, questions by what they ask about which picture; and pictures nobody asks about."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from launch.checking.found_sources import Found
from launch.checking.problems import Problems
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, Picture, PreparedPicture, Question

Read = Sequence[tuple[Found, Sequence[Picture]]]
_BLOCK = 2**20  # bytes


def equal_files(files: Iterable[Path]) -> dict[Path, bytes]:
    """A digest of each file that has as many bytes as another one; only those are read."""
    sizes: dict[int, list[Path]] = defaultdict(list)
    for file in files:
        if file.is_file():
            sizes[file.stat().st_size].append(file)
    return {file: _digest(file) for alike in sizes.values() if len(alike) > 1 for file in alike}


def _digest(file: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with open(file, "rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.digest()


def check_duplicates(
    read: Read, prepared: Mapping[Any, bytes], prepared_depths: Mapping[Any, bytes], problems: Problems
) -> None:
    """Looks for equal pictures, depth and questions, between sides and within them.

    prepared, prepared_depths: digests of prepared pictures and their depth.
    """
    raw = [p for _, found in read for p in found if not isinstance(p, PreparedPicture)]
    same = {**equal_files(sorted({p.image for p in raw})), **prepared}
    depths = {**equal_files(sorted({p.depth for p in raw if p.depth is not None})), **prepared_depths}
    _check_pictures(read, same, problems)
    _check_depths(read, same, depths, problems)
    _check_questions(read, same, problems)


def _check_pictures(read: Read, same: Mapping[Any, bytes], problems: Problems) -> None:
    first: dict[Any, dict[str, Path]] = defaultdict(dict)  # what it shows -> a file of each side
    seen: set[tuple[str, Path]] = set()
    for found, pictures in read:
        for picture in pictures:
            if (found.side, picture.image) in seen:
                continue
            seen.add((found.side, picture.image))
            problems.looked(
                not found.trained, "leak"
            )  # few of many to learn from may be all there are to be scored with
            problems.looked(1, "same_picture")
            known = first[same.get(picture.image, picture.image)]
            others = [(side, file) for side, file in known.items() if side != found.side]
            if others and found.side not in known:
                side, file = others[0]
                problems.add("leak", f"{found.file}: picture {picture.image} is {file} of {side}")
            elif found.side in known:
                problems.add("same_picture", f"{found.file}: picture {picture.image} is {known[found.side]}")
            known.setdefault(found.side, picture.image)


def _check_depths(read: Read, same: Mapping[Any, bytes], depths: Mapping[Any, bytes], problems: Problems) -> None:
    """Looks for pictures that show something else and have the same depth."""
    first: dict[Any, tuple[Any, Path]] = {}  # a depth -> what its first picture shows, and that picture
    seen: set[Path] = set()
    for found, pictures in read:
        for picture in pictures:
            if picture.depth is None or picture.image in seen:
                continue
            seen.add(picture.image)
            problems.looked(1, "same_depth")
            shown = same.get(picture.image, picture.image)
            known, other = first.setdefault(depths.get(picture.depth, picture.depth), (shown, picture.image))
            if known != shown:
                problems.add("same_depth", f"{found.file}: the depth of picture {picture.image} is that of {other}")


def _check_questions(read: Read, same: Mapping[Any, bytes], problems: Problems) -> None:
    asked: dict[bytes, tuple[Found, Question]] = {}
    for found, pictures in read:
        for picture in pictures:
            shown = same.get(picture.image, str(picture.image).encode(errors="surrogateescape"))
            for question in picture.questions:
                problems.looked(not found.trained, "leaked_question")
                problems.looked(1, "contradiction", "repeated")
                said = [question.earlier, question.prompt, question.regions]
                key = hashlib.blake2b(shown + repr(said).encode(), digest_size=16).digest()
                before, other = asked.setdefault(key, (found, question))
                if other is question:
                    continue
                name = f"{found.file}: record {question.id!r}"
                if before.side != found.side:
                    problems.add("leaked_question", f"{name} asks what {other.id!r} of {before.file.name} does")
                elif before is found and _value(question) == _value(other):
                    problems.add("repeated", f"{name} asks what {other.id!r} does")
                elif before is found and question.category in WAREHOUSE_CATEGORIES:
                    values = f"{_value(question)!r} and {_value(other)!r}"
                    problems.add("contradiction", f"{name} and {other.id!r} ask the same, with the answers {values}")


def _value(question: Question) -> object:
    return question.answer if question.normalized_answer is None else question.normalized_answer


def check_unasked(read: Read, problems: Problems) -> None:
    """Looks for pictures without questions beside those with some."""
    raw = [(found, p) for found, pictures in read for p in pictures if not isinstance(p, PreparedPicture)]
    asked, folders = {picture.image for _, picture in raw}, {}  # of pictures -> an annotation file
    for found, picture in raw:
        folders.setdefault(picture.image.parents[len(Path(picture.id).parts) - 1], found.file)
    for folder, file in folders.items():
        for left in _pictures_of(folder):
            if left not in asked:
                problems.add("unasked", f"{file}: no question about {left} that can be used")


def _pictures_of(folder: Path) -> Iterator[Path]:
    suffixes = Image.registered_extensions()
    return (file for file in sorted(folder.rglob("*")) if file.suffix.lower() in suffixes and file.is_file())
