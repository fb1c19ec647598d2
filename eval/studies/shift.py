"""Layout shift: a checkpoint trained on the demo's warehouse, asked about warehouses with other cameras, other looks, more objects."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs import studies as configs
from eval.scoring.official import is_right
from eval.studies.findings import Found, Limits, markdown, of_one_run, read_predictions, score, write_study
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.files import read_json, write_text
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import ensure_warehouse

if TYPE_CHECKING:
    from smolrgpt_jax.model import Model

LISTS = ("count", "mcq")  # categories whose questions name many regions
MASKS = {"up to 6": 6, "7 to 9": 9, "10 or more": 10**9}  # the demo's training has hardly any question with ten or more


def run_study(model: "Model", out: Path, limits: Limits, checkpoint: Path, scenes: int = 100) -> Found:
    """Makes the test warehouses under OUT/data, answers them and writes the study.

    Returns the scores of each variant with 95 % intervals over pictures. Raises DataError or OSError.
    """
    found, by_masks = {}, {}
    for variant in configs.SHIFT:
        print(f"shift: {variant}", flush=True)
        data = ensure_shifted(out / "data", variant, scenes)
        details = {"study": "shift", "variant": variant, "checkpoint": checkpoint, "data": data}
        score(model, read_warehouse(data, "val"), out / data.name, limits, **details)
        found[variant] = of_one_run(out / data.name)
        by_masks[variant] = scores_by_masks(out / data.name, data / "val.json")
    write_study(out, found, study="shift", version=configs.SHIFT_VERSION, checkpoint=str(checkpoint))
    text = masks_table(by_masks)
    write_text(out / "masks.md", text + "\n")
    print(text)
    return found


def folder_name(variant: str) -> str:
    return variant.replace(" ", "_")


def ensure_shifted(folder: Path, variant: str, scenes: int = 100) -> Path:
    """The test warehouse of a variant of configs.studies.SHIFT, in a folder of its name; made unless it is there."""
    data = folder / folder_name(variant)
    ensure_warehouse(data, WarehouseConfig(**configs.shifted_warehouse(variant, scenes)))
    return data


def scores_by_masks(folder: Path, annotations: Path) -> dict[str, list[bool]]:
    """Whether each question is right, by category and number of masks, of a folder of eval.warehouse."""
    masks = {str(record["id"]): len(record["rle"]) for record in read_json(annotations, list)}
    found: dict[str, list[bool]] = {f"{category}, {number}": [] for category in LISTS for number in MASKS}
    for name, item in read_predictions(folder).items():
        if item["category"] in LISTS:
            number = next(number for number, most in MASKS.items() if masks[name] <= most)
            found[f"{item['category']}, {number}"].append(is_right(item))
    return found


def masks_table(found: Mapping[str, Mapping[str, Sequence[bool]]]) -> str:
    """Markdown: percent right and the number of questions, one row per variant, one column per category and number of masks."""

    def cell(asked: Sequence[bool]) -> str:
        return f"{100 * sum(asked) / len(asked):.0f} (of {len(asked)})" if asked else "-"

    rows = {variant: [cell(asked) for asked in scores.values()] for variant, scores in found.items()}
    return markdown("masks in the question", list(next(iter(found.values()))), rows)
