"""How sure a checkpoint is of its answers: fitted on one split of the warehouse benchmark, tried on another."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from eval.answering import asking
from eval.answering.warehouse import list_answers
from eval.command_line import command_line
from eval.reading.methods import RULES, read_values
from eval.scoring.confidence import confidence, fit_confidence, reliabilities, table_of
from eval.scoring.official import is_right
from smolrgpt_jax.data.records import BadRecords, Picture, describe, spread_questions
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import DataError, told
from smolrgpt_jax.files import write_json


def read_answered(data: Path, split: str, annotations: str, limit: int | None) -> tuple[list[Picture], BadRecords]:
    """The pictures of a split with the questions to ask; raises DataError without usable questions, and where an answer is not published."""
    bad = BadRecords("report")
    pictures = spread_questions(read_warehouse(data, split, annotations=annotations, on_bad_record=bad), limit)
    if not pictures:
        raise DataError(f"{data / annotations}: holds no usable question; {bad.summary(1)}")
    if any(question.normalized_answer is None for picture in pictures for question in picture.questions):
        raise DataError(f"{data / annotations}: has questions without a published answer")
    print(f"{split}: {describe(pictures)}", flush=True)
    return pictures, bad


def answered(model: Any, pictures: Sequence[Picture], bad: BadRecords, batch_size: int) -> list[dict]:
    """The items of predictions.json, each with "likelihood", the logarithm of its answer's probability."""
    from smolrgpt_jax.generation.engine import AnswerOptions
    from smolrgpt_jax.generation.likelihood import log_likelihoods

    options = AnswerOptions(batch_size, model.answer_tokens, on_bad_record=bad)
    items = read_values(list_answers(pictures, asking.answer_questions(model, pictures, options)), RULES)
    likely = log_likelihoods(model, pictures, {item["id"]: item["answer"] for item in items}, on_bad_record=bad)
    if bad.reasons:
        print(bad.summary())
    return [item | {"likelihood": likely[item["id"]]} for item in items if item["id"] in likely]


def groups(items: Sequence[dict]) -> dict[str, tuple[list[float], list[bool]]]:
    """Likelihoods of answers, and whether they are right, of each category."""
    found: dict[str, tuple[list[float], list[bool]]] = defaultdict(lambda: ([], []))
    for item in items:
        likelihoods, rights = found[item["category"]]
        likelihoods.append(item["likelihood"])
        rights.append(is_right(item))
    return dict(found)


def check_categories(file: Path, fitted: Iterable[str], tried: Iterable[str]) -> None:
    """Raises DataError for a category to be tried that no question of the file, on which the others are fitted, is of."""
    if lost := sorted(set(tried) - set(fitted)):
        raise DataError(f"{file} has no question of {', '.join(lost)}, nothing to fit on")


@told(asking.INTERRUPTED)
def main(arguments: Sequence[str] | None = None) -> None:
    args = command_line("eval.confidence", __doc__).parse_args(arguments)
    model = asking.load_model(args.checkpoint)
    files = {args.fit: f"{args.fit}.json"} | {args.split: args.annotations or f"{args.split}.json"}
    read = [read_answered(args.data, split, files[split], args.limit) for split in (args.fit, args.split)]
    asked = ([question.category for picture in pictures for question in picture.questions] for pictures, _ in read)
    check_categories(args.data / files[args.fit], *asked)
    fitted, tried = (answered(model, pictures, bad, args.batch_size) for pictures, bad in read)
    check_categories(args.data / files[args.fit], *([item["category"] for item in items] for items in (fitted, tried)))
    fits = {name: fit_confidence(*found) for name, found in groups(fitted).items()}
    sure = [item | {"confidence": confidence(item["likelihood"], fits[item["category"]])} for item in tried]
    scores = reliabilities(sure)
    from smolrgpt_jax.checkpoint.fingerprint import params_fingerprint

    about = {"checkpoint_fingerprint": params_fingerprint(model.params), "fitted_on": args.fit, "tried_on": args.split}
    write_json(args.out, about | {"fits": fits, "scores": scores})
    print(table_of(scores))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
