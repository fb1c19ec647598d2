"""The step that all studies share: a model answers the questions of one variant, which are scored and written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.answering.model import run_details
from eval.answering.questions import answer_questions
from eval.answering.warehouse import evaluate
from smolrgpt_jax.data.sources.warehouse import read_warehouse
from smolrgpt_jax.errors import DataError

if TYPE_CHECKING:
    from smolrgpt_jax.model import Model


def score(
    model: Model,
    root: Path,
    split: str,
    out: Path,
    *,
    batch_size: int,
    max_new_tokens: int | None,
    annotations: str | None = None,
    loss_curves: dict[str, Path] | None = None,
    **details: Any,
) -> dict:
    """Answers a split of a folder in the published layout and writes into ``out`` what eval.warehouse writes.

    Args:
      max_new_tokens: longest answer, None for what `Model.answer_tokens` says.
      annotations: file under ``root`` with the questions, None for SPLIT.json.
      loss_curves: name -> metrics.csv, for the report.
      details: what the report says of the run.

    Returns:
      The metrics.

    Raises:
      DataError: records or pictures that cannot be used, or records without answers.
    """
    from smolrgpt_jax.generation import AnswerOptions

    options = AnswerOptions(batch_size, max_new_tokens or model.answer_tokens)
    metrics = evaluate(
        read_warehouse(root, split, annotations=annotations),
        lambda asked: answer_questions(model, asked, options),
        out,
        loss_curves=loss_curves,
        run_info=run_details(model, "eval.studies", **details),
    )
    if metrics is None:
        raise DataError(f"{root}: no answers to score against")
    return metrics
