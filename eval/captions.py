"""How much of the captions of unseen scenes the demo's backbone gets right, kind by kind and step by step."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from configs import default, demo_backbone
from eval.command_line import command_line
from eval.reading.rules import question_category
from smolrgpt_jax.data.records import Question
from smolrgpt_jax.data.sources.formats import read_source
from smolrgpt_jax.errors import CheckpointError, told
from smolrgpt_jax.files import read_json, write_json
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import ensure_warehouse

if TYPE_CHECKING:
    from smolrgpt_jax.data.batches import PackedRows
    from smolrgpt_jax.model import Model

# Name -> {"right": percent, "of": number}.
Shares = Mapping[str, Mapping[str, float]]
SEED = 990_001
BATCH_ROWS = 16
# Kind -> how its prompts begin, for those that do not ask as the benchmark does; step -> pattern whose group has to be said.
KINDS, STEPS = read_json(Path(__file__).with_suffix(".json"), dict).values()
_SHORT = {"left_right": "side", "count": "how_many", "distance": "apart"}


def caption_kind(prompt: str, answer: str) -> str:
    """Kind of a region caption, as in smolrgpt_jax/warehouse/captions.toml; "other" where neither beginning nor category tells."""
    for kind, begin in KINDS.items():
        if prompt.startswith(begin):
            return kind
    category = question_category(prompt)
    if category == "left_right" or category in _SHORT and len(answer.split()) <= 3:
        return _SHORT[category]
    return f"worked_{category}" if category else "other"


def predicted_right(model: "Model", rows: "PackedRows") -> dict[str, np.ndarray]:
    """Question id -> bool[N], whether each token of its answer, end of turn included, is the likeliest one."""
    import jax

    from smolrgpt_jax.models.smolrgpt import bind

    @jax.jit
    def right(params, batch):
        logits = bind(model.config, params, model.compute)(batch)["logits"]
        return logits.argmax(-1) == batch["targets"]

    found = {}
    for begin in range(0, len(rows), BATCH_ROWS):
        numbers = [n if n < len(rows) else -1 for n in range(begin, begin + BATCH_ROWS)]
        batch = rows.batch(numbers)
        hits = np.asarray(right(model.params, batch))
        for place, number in enumerate(numbers):
            if number < 0:
                continue
            answered = batch["targets"][place] >= 0
            # The last token of a prompt, which the first of the answer is predicted from, belongs to the question too.
            questions = batch["question_ids"][place][answered]
            for k, name in enumerate(rows.question_ids(number), start=1):
                found[name] = hits[place][answered][questions == k]
    return found


def shares_right(
    questions: Iterable[Question], right: Mapping[str, np.ndarray], spans: Mapping[str, Sequence[tuple[int, int]]]
) -> dict[str, Shares]:
    """{"kind": of captions, "step": of everything in them that is one}.

    By id, right: see `predicted_right`; spans: characters (begin, end) of each token of the answer.
    """
    counted: dict[str, dict[str, list[bool]]] = {"kind": defaultdict(list), "step": defaultdict(list)}
    for question in questions:
        hits = right[question.id]
        counted["kind"][caption_kind(question.prompt, question.answer)].append(hits.all())
        for name, pattern in STEPS.items():
            for match in re.finditer(pattern, question.answer):
                begin, end = match.span(1)
                touched = [i for i, (b, e) in enumerate(spans[question.id]) if b < end and e > begin]
                counted["step"][name].append(hits[touched].all())
    return {
        table: {name: {"right": 100 * float(np.mean(all_)), "of": len(all_)} for name, all_ in sorted(rows.items())}
        for table, rows in counted.items()
    }


def evaluate(model: "Model", phase: str, scenes: int, out: Path) -> dict[str, Shares]:
    """Makes the scenes under `out` unless they are there, and writes captions.json; returns `shares_right`."""
    from smolrgpt_jax.data.batches import PackedRows
    from smolrgpt_jax.training.data import row_shape

    if model.tokenizer is None:
        raise CheckpointError(f"{model.source} has no tokenizer, which captions take")
    warehouse = {**demo_backbone.warehouse(phase), "scenes": 0, "val_scenes": scenes, "seed": SEED}
    ensure_warehouse(out / "data", WarehouseConfig(**warehouse))
    pictures = read_source(default.warehouse(str(out / "data"), "val", "val_regions.json"))
    run = demo_backbone.get_config(phase)
    shape = row_shape(model.config, run.data, regions=True)
    tokenizer = model.tokenizer.with_format(region_names=run.data.region_names)
    right = predicted_right(model, PackedRows(pictures, tokenizer, shape))
    questions = [question for picture in pictures for question in picture.questions]
    spans = {question.id: tokenizer.spans(question.answer) for question in questions}
    shares = shares_right(questions, right, spans)
    write_json(out / "captions.json", {"phase": phase, "scenes": scenes, **shares})
    return shares


def table(title: str, shares: Shares) -> str:
    lines = [f"| {title} | right, % | of |", "|---|---|---|"]
    return "\n".join(lines + [f"| {name} | {row['right']:.1f} | {row['of']} |" for name, row in shares.items()])


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    args = command_line("eval.captions", __doc__, phase=demo_backbone.PHASES).parse_args(arguments)
    from smolrgpt_jax import load

    print(f"captions of {args.scenes} scenes as in {args.phase}, writing to {args.out}")
    found = evaluate(load(args.checkpoint), args.phase, args.scenes, args.out)
    print(table("caption", found["kind"]), table("step", found["step"]), sep="\n\n")


if __name__ == "__main__":
    main()
