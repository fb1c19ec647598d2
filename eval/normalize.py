"""Reads the values of answers again, by other methods, without a model."""

from collections.abc import Sequence
from pathlib import Path

from eval.command_line import command_line
from eval.reading.methods import build_methods, read_values
from eval.scoring import results
from smolrgpt_jax.config import misfit
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES
from smolrgpt_jax.errors import DataError, told
from smolrgpt_jax.files import read_json, results_folder, write_json

_TEXTS = ("image", "category", "question", "answer")


def read_answers(path: str | Path) -> list[dict]:
    """Answers: dicts of id, image, category, question, answer (texts), truth, and whatever else is there but the values
    that were read off them before.

    Raises DataError where the file is unreadable or empty, a record lacks a field or has an unusable one, or ids occur
    twice.
    """
    answers = []
    for record in results.read_records(path, (*_TEXTS, "truth")):
        for field, default in {**dict.fromkeys(_TEXTS, ""), "cut_off": False, "left_out": False}.items():
            if wrong := misfit(record.get(field, default), default):
                raise DataError(f"{path}: record {record['id']!r}: {field} is {record[field]!r}, expected {wrong}")
        truth = results.read_value(path, record, "truth", ("", *WAREHOUSE_CATEGORIES))
        kept = {key: record[key] for key in record if key not in ("normalized_answer", "values")}
        answers.append({**kept, "truth": truth})
    return answers


@told("interrupted; what a server said is kept, the same command goes on from there")
def main(arguments: Sequence[str] | None = None) -> None:
    args = command_line("eval.normalize", __doc__).parse_args(arguments)
    print(f"reading {args.predictions} by {', '.join(args.answers)}, writing to {args.out}")
    answers = read_answers(args.predictions)
    ids = results.record_ids(read_json(args.annotations, list)) if args.annotations else None
    if ids is not None:
        results.check_known([item["id"] for item in answers], ids, args.annotations)
    # Who answered, when and how fast is as it was.
    run_file = args.predictions.with_name(results.RUN_FILE)
    run = read_json(run_file, dict) if run_file.exists() else {}
    methods = build_methods(args)
    predictions = read_values(answers, methods)
    metrics = results.compute_metrics(predictions, methods=methods)
    with results_folder(args.out, [name for name in results.RESULT_FILES if name != "answers.json"]) as aside:
        results.write_results(aside, predictions, ids, metrics)
        if run:
            write_json(aside / results.RUN_FILE, run | {"answers_read_by": ", ".join(methods)})
    print(results.describe_results(args.out, metrics))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
