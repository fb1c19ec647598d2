"""All checks of all sources, one after another, and what the page shows of them."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from eval.answering.samples import draw
from eval.report.html import CATEGORY_TITLES, shown_question
from eval.report.overlay import draw_regions, jpeg_data_uri
from launch.checking.duplicates import check_duplicates, check_unasked
from launch.checking.found_sources import Found
from launch.checking.picture_checks import PictureChecks
from launch.checking.problems import Problems
from launch.checking.question_checks import Sizes, answer_table, check_questions
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.images import upright_depth
from smolrgpt_jax.data.prepared.reader import check_prepared, load_stored, settings
from smolrgpt_jax.data.records import BadRecords, Picture, PreparedPicture, merge_pictures, spread
from smolrgpt_jax.data.rows import RowShape
from smolrgpt_jax.data.sources.formats import read_source
from smolrgpt_jax.errors import DataError

SHEET, DRAWN_FROM, SHEET_WIDTH = 12, 200, 560  # questions shown, pictures they are drawn from, pixels


@dataclasses.dataclass(frozen=True)
class For:
    """What the data is for: rows of a shape, a tokenizer, a way of reading depth."""

    shape: RowShape
    tokenizer: ChatTokenizer
    depth_mode: str | None = None  # None where no configuration says which model it is

    def grid_of(self, picture: Picture) -> int:
        """Points of the pooling grid along a side: prepared masks have theirs already."""
        if isinstance(picture, PreparedPicture):
            return settings(picture.folder)["mask_grid"]
        return self.shape.mask_grid


def check_all(sources: Sequence[Found], wanted: For, limit: int | None, problems: Problems) -> dict[str, Any]:
    """Reads sources as a training does and looks at them; `limit` of their pictures, spread over all, are decoded.

    Returns what checked.html shows beside the problems.
    """
    read = [(found, _read(found, problems)) for found in sources]
    sizes = Sizes()
    for found, pictures in read:
        check_questions(found, pictures, wanted.shape, wanted.tokenizer, problems, sizes)
        _check_prepared(found, pictures, wanted, problems)
    _check_merging([part for part in read if part[0].trained], problems)
    sides: dict[str, list[Picture]] = {}
    for found, pictures in read:
        sides.setdefault(found.side, []).extend(pictures)
    trained = sorted({found.side for found, _ in read if found.trained})
    answers = answer_table(sides, trained, problems)

    groups: dict[Path, list[tuple[Found, Picture]]] = {}
    for found, pictures in read:
        for picture in pictures:
            groups.setdefault(picture.image, []).append((found, picture))
    places = list(groups.values())
    checks: dict[int, PictureChecks] = {}
    chosen = spread(len(places), len(places) if limit is None else limit)
    for number in tqdm(chosen, desc="pictures", unit="picture", leave=False, disable=None):
        grid = wanted.grid_of(places[number][0][1])
        checks.setdefault(grid, PictureChecks(grid, problems)).look(places[number])
    prepared: dict[Any, bytes] = {}
    prepared_depths: dict[Any, bytes] = {}
    for looking in checks.values():
        looking.end()
        prepared |= looking.same
        prepared_depths |= looking.same_depth
    check_duplicates(read, prepared, prepared_depths, problems)
    check_unasked(read, problems)
    smallest = [looking.smallest for looking in checks.values() if looking.smallest is not None]
    return {
        "sources": [_described(found, pictures) for found, pictures in read],
        "answers": answers,
        "titles": CATEGORY_TITLES,
        "shape": wanted.shape,
        "grids": sorted(checks) or [wanted.shape.mask_grid],
        "sizes": sizes,
        "depth": [(*key, facts) for looking in checks.values() for key, facts in looking.depth.items()],
        "regions": sum(looking.regions for looking in checks.values()),
        "smallest": 100 * min(smallest) if smallest else None,
        "looked": sum(looking.looked for looking in checks.values()),
        "pictures": len(places),
        "questions": sum(len(picture.questions) for _, pictures in read for picture in pictures),
        "sheet": contact_sheet(read),
    }


def _read(found: Found, problems: Problems) -> list[Picture]:
    bad = BadRecords("report")
    try:
        pictures: list[Picture] = list(read_source(found.source, bad))
    except (DataError, OSError) as error:
        problems.add("file", error)
        return []
    for reason in bad.reasons:
        problems.add("record", reason)
    if not any(picture.questions for picture in pictures):
        problems.add("nothing", f"{found.file} holds no question that can be used")
    return pictures


def _check_merging(read: Sequence[tuple[Found, Sequence[Picture]]], problems: Problems) -> None:
    """What a training would say when it brings the questions of several sources about one picture together."""
    bad = BadRecords("report")
    merge_pictures((pictures for _, pictures in read), bad)
    for reason in bad.reasons:
        problems.add("merge", reason)


def _check_prepared(found: Found, pictures: Sequence[Picture], wanted: For, problems: Problems) -> None:
    """Whether prepared data is of the configuration's sizes and reading of depth, if one was given."""
    prepared = [picture for picture in pictures if isinstance(picture, PreparedPicture)]
    if prepared and wanted.depth_mode is not None:
        first = next((picture for picture in prepared if picture.depth is not None), prepared[0])
        try:
            check_prepared(first, wanted.shape.image_size, wanted.shape.mask_grid, wanted.depth_mode)
        except DataError as error:
            problems.add("prepared", f"{found.file}: {error}")


def _described(found: Found, pictures: Sequence[Picture]) -> dict[str, Any]:
    counts = Counter(question.category or "without category" for picture in pictures for question in picture.questions)
    about = {"name": found.name, "format": found.source["format"], "side": found.side, "trained": found.trained}
    return about | {"pictures": len(pictures), "questions": sum(counts.values()), "categories": sorted(counts.items())}


def contact_sheet(read: Sequence[tuple[Found, Sequence[Picture]]]) -> list[dict[str, Any]]:
    """A few questions with their pictures, sources and categories in turn, their regions drawn in, also on the depth.

    What cannot be read is among the problems already, and left out.
    """
    some = {
        found.name: [pictures[number] for number in spread(len(pictures), DRAWN_FROM // max(1, len(read)) + 1)]
        for found, pictures in read
    }
    entries = (_entry(asked.source, asked.picture) for asked in draw(some, 2 * SHEET, seed=0))
    return list(itertools.islice(filter(None, entries), SHEET))


def _entry(source: str, picture: Picture) -> dict[str, Any] | None:
    question = picture.questions[0]
    try:
        shown = shown_question(picture, question)
        depth: Image.Image | None = None
        if isinstance(picture, PreparedPicture):
            grey = load_stored(picture).depth
            depth = None if grey is None else Image.fromarray(grey).convert("RGB")
        elif picture.depth is not None:
            depth = draw_regions(upright_depth(picture.depth, picture.image), question.regions, SHEET_WIDTH)
    except (OSError, SyntaxError, ValueError):
        return None
    uri = None if depth is None else jpeg_data_uri(depth)
    return {"source": source, "image": picture.id, "question": question, "depth": uri, **shown}


def summary(found: Mapping[str, Any], problems: Problems) -> str:
    """What the command prints."""
    lines = []
    for source in found["sources"]:
        counts = ", ".join(f"{name} {number}" for name, number in source["categories"])
        lines.append(
            f"{source['name']} ({source['format']}): {source['pictures']} pictures, {source['questions']} questions ({counts})"
        )
    lines.append(f"looked at {found['looked']} of {found['pictures']} pictures and all {found['questions']} questions")
    for problem in problems.found.values():
        first = problem.sentences[0]
        more = f" (and {problem.count - 1} more)" if problem.count > 1 else ""
        lines.append(f"{'WRONG' if problem.wrong else 'note'}: {problem.title}: {first}{more}")
    wrong = problems.wrong
    lines.append(f"{wrong} kind{'s' * (wrong != 1)} of problem{'s' * (wrong != 1)}" if wrong else "nothing wrong")
    return "\n".join(lines)
