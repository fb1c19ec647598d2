"""What a checkpoint's answers rest on: the same questions once more with something taken away or moved.

    python -m eval.studies inputs --checkpoint DIR --data ROOT --split test --annotations test_answers.json --out DIR
    python -m eval.studies masks --checkpoint DIR --data ROOT --split test --annotations test_answers.json --out DIR

inputs: depth, RGB picture or both replaced by grey. masks: those of one kind in another order, which moves the right answers
with them; all masks laid on the picture of another record, whose places then are all that is left. Nothing is trained.

Writes DIR/VARIANT (what eval.warehouse writes), table.md, plot.svg and study.json, with 95 % intervals over pictures.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from eval import positive, results_folder, write_json
from eval.side_questions import GREY, region_kinds
from eval.statistics import describe_interval
from eval.warehouse import answer_questions, evaluate, run_details
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, BadRecords, DataError
from smolrgpt_jax.data.sources.collect import read_json_list
from smolrgpt_jax.data.sources.warehouse import read_warehouse

if TYPE_CHECKING:
    from smolrgpt_jax.loading import Model

Records = list[dict]
SCORES = ("S1", *WAREHOUSE_CATEGORIES)
OTHER_SIDE = {"left": "right", "right": "left"}


def unchanged(records: Records, rng: np.random.Generator) -> Records:
    """The records themselves."""
    return records


def reordered(records: Records, rng: np.random.Generator) -> Records:
    """The masks of each kind in another random order; what the right answer names or compares moves along."""
    return [_reordered(record, rng) for record in records]


def _reordered(record: dict, rng: np.random.Generator) -> dict:
    kinds = region_kinds(record["conversations"][0]["value"])
    order = np.arange(len(kinds))
    for kind in sorted(set(kinds)):
        places = np.flatnonzero([k == kind for k in kinds])
        order[places] = places[rng.permutation(len(places))]
    value = record["normalized_answer"]
    if record["category"] == "mcq":
        value = str(order.tolist().index(int(value)))
    elif record["category"] == "left_right" and order[0] != 0:
        value = OTHER_SIDE[value]
    return {**record, "rle": [record["rle"][i] for i in order], "normalized_answer": value}


def elsewhere(records: Records, rng: np.random.Generator) -> Records:
    """Every record's masks and question on the picture of another scene; pictures are exchanged among the records."""
    names = sorted({record["image"] for record in records})
    if len(names) < 2:
        raise DataError("pictures cannot be exchanged, there is only one")
    shift = int(rng.integers(1, len(names)))
    other = {name: names[(i + shift) % len(names)] for i, name in enumerate(names)}
    return [{**record, "image": other[record["image"]]} for record in records]


# Name of a variant -> what becomes of the records, and which pictures turn grey.
Variant = tuple[Callable[[Records, np.random.Generator], Records], frozenset[str]]
STUDIES: dict[str, dict[str, Variant]] = {
    "inputs": {
        "everything": (unchanged, frozenset()),
        "no depth": (unchanged, frozenset({"depths"})),
        "no RGB": (unchanged, frozenset({"images"})),
        "masks alone": (unchanged, frozenset({"images", "depths"})),
    },
    "masks": {
        "as they are": (unchanged, frozenset()),
        "in another order": (reordered, frozenset()),
        "on another picture": (elsewhere, frozenset()),
    },
}


def write_variant(
    variant: Variant, records: Records, split_folder: Path, out: Path, rng: np.random.Generator
) -> None:
    """Writes a folder in the published layout, split "val", with the variant of the records and their pictures."""
    change, grey = variant
    changed = change(records, rng)
    for kind in ("images", "depths"):
        (out / "val" / kind).mkdir(parents=True)
    for name in sorted({Path(record["image"]).stem for record in changed}):
        for kind, file in (("images", f"{name}.png"), ("depths", f"{name}_depth.png")):
            source, target = split_folder / kind / file, out / "val" / kind / file
            if kind not in grey:
                shutil.copyfile(source, target)
                continue
            with Image.open(source) as picture:
                size = picture.size
            colour = ("RGB", (GREY,) * 3) if kind == "images" else ("L", GREY)
            Image.new(colour[0], size, colour[1]).save(target)
    (out / "val.json").write_text(json.dumps(changed), encoding="utf-8")


def run_study(
    name: str, model: Model, records: Records, split_folder: Path, out: Path, *, seed: int, batch_size: int,
    max_new_tokens: int, checkpoint: Path,
) -> dict[str, dict]:  # fmt: skip
    """Answers all variants of a study and writes what the module's docstring names.

    Args:
      records: of the published layout, with answers; their pictures lie in ``split_folder``.
      seed: of what a variant draws.

    Returns:
      {variant: metrics as in metrics.json}.

    Raises:
      DataError: records or pictures that cannot be used.
    """
    found: dict[str, dict] = {}
    for variant, change in STUDIES[name].items():
        print(f"{name}: {variant}", flush=True)
        with tempfile.TemporaryDirectory(prefix="smolrgpt_study_") as folder:
            write_variant(change, records, split_folder, Path(folder), np.random.default_rng(seed))
            bad = BadRecords("error")
            pictures = read_warehouse(folder, "val", on_bad_record=bad)
            metrics = evaluate(
                pictures,
                lambda asked: answer_questions(model, asked, batch_size, max_new_tokens, bad),
                out / variant.replace(" ", "_"),
                run_info=run_details(
                    model,
                    "eval.studies",
                    study=name,
                    variant=variant,
                    checkpoint=checkpoint,
                    data=split_folder,
                ),
            )
        if metrics is None:
            raise DataError("the records have no answers to score against")
        found[variant] = metrics
    command = shlex.join(["python", "-m", "eval.studies", *sys.argv[1:]])
    with results_folder(out) as aside:
        write_json(
            aside / "study.json",
            {
                "command": command,
                "seed": seed,
                "variants": {
                    v: {s: m[s] for s in SCORES} | {"intervals": m["intervals"]} for v, m in found.items()
                },
            },
        )
        (aside / "table.md").write_text(f"{table(found)}\n\n    {command}\n", encoding="utf-8")
        (aside / "plot.svg").write_text(plot(found), encoding="utf-8")
    return found


def table(found: Mapping[str, Mapping]) -> str:
    """Markdown: one row per variant, percent right with the 95 % interval."""
    lines = ["| variant | " + " | ".join(SCORES) + " |", "|---" * (len(SCORES) + 1) + "|"]
    for variant, metrics in found.items():
        cells = [
            "-"
            if metrics[s] is None
            else f"{metrics[s]:.1f} ({describe_interval(metrics['intervals'].get(s), '.1f')})"
            for s in SCORES
        ]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(found: Mapping[str, Mapping]) -> str:
    """An SVG of bars, one group per score, one bar per variant, with whiskers for the intervals."""
    colours = ("#3465a4", "#c17d11", "#4e9a06", "#a40000")
    width, height, left, bottom = 720, 300, 40, 250
    group = (width - left) / len(SCORES)
    bar = 0.8 * group / len(found)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
    ]
    for percent in range(0, 101, 25):
        y = bottom - 2 * percent
        parts.append(
            f'<path d="M{left} {y}H{width}" stroke="#ddd"/><text x="4" y="{y + 4}">{percent} %</text>'
        )
    for g, score in enumerate(SCORES):
        parts.append(
            f'<text x="{left + (g + 0.5) * group:.0f}" y="{bottom + 18}" text-anchor="middle">{score}</text>'
        )
        for v, (variant, metrics) in enumerate(found.items()):
            if metrics[score] is None:
                continue
            x, top = left + g * group + 0.1 * group + v * bar, bottom - 2 * metrics[score]
            parts.append(
                f'<rect x="{x:.1f}" y="{top:.1f}" width="{bar - 2:.1f}" height="{bottom - top:.1f}" fill="{colours[v]}">'
                f"<title>{variant}: {metrics[score]:.1f} %</title></rect>"
            )
            if interval := metrics["intervals"].get(score):
                low, high = (bottom - 2 * value for value in interval)
                parts.append(f'<path d="M{x + bar / 2 - 1:.1f} {low:.1f}V{high:.1f}" stroke="black"/>')
    for v, variant in enumerate(found):
        x = left + 170 * v
        parts.append(
            f'<rect x="{x}" y="{bottom + 30}" width="10" height="10" fill="{colours[v]}"/><text x="{x + 15}" y="{bottom + 39}">{variant}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--checkpoint", required=True, type=Path, help="what eval.warehouse takes")
    parser.add_argument("--data", required=True, type=Path, help="folder in the published layout")
    parser.add_argument("--split", default="val", help="train, val or test")
    parser.add_argument("--annotations", help="file under --data with the questions, by default SPLIT.json")
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default %(default)s)")
    parser.add_argument("--limit", type=positive, help="only the first LIMIT questions")
    parser.add_argument("--batch_size", type=positive, default=64, help="questions answered at once")
    parser.add_argument("--max_new_tokens", type=positive, default=144, help="longest answer, in tokens")
    args = parser.parse_args(arguments)
    annotations = args.data / (args.annotations or f"{args.split}.json")
    print(f"study {args.study}: {annotations} with {args.checkpoint}, writing to {args.out}")
    try:
        from smolrgpt_jax import load

        records = read_json_list(annotations)[: args.limit]
        # The reader says which record is wrong, before any is changed.
        read_warehouse(args.data, args.split, annotations=annotations.name, on_bad_record=BadRecords("error"))
        found = run_study(
            args.study,
            load(args.checkpoint),
            records,
            args.data / args.split,
            args.out,
            seed=args.seed,
            batch_size=args.batch_size,
            max_new_tokens=args.max_new_tokens,
            checkpoint=args.checkpoint,
        )
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    print(table(found))


if __name__ == "__main__":
    main()
