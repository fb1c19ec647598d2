"""The model that a command asks: its answers to all questions, what a report says of it."""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.command_line import typed_command
from eval.reading.rules import question_category
from smolrgpt_jax.data.records import Picture, Question

# JAX is imported by the functions that need it: neither --help nor a mistyped path should wait for it.
if TYPE_CHECKING:
    from smolrgpt_jax.generation.engine import AnswerOptions
    from smolrgpt_jax.model import Model

FINGERPRINT = "checkpoint fingerprint"

# Of a run's answers, a file each.
FIRST, REORDERED, DRAWN = JOURNAL_PARTS = ("", "reordered", "drawn")
INTERRUPTED = "interrupted; finished answers are kept, the same command goes on from there"
# What a model says of one question: its text, or a dict of "answer", the text, and where they are there "closing", the
# value that it wrote behind it, and "cut_off", True for a text that the longest length cut.
# A server may tell "tokens": {"prompt", "completion"}, and "confidence".
Answered = str | Mapping[str, str | bool | float | None | Mapping[str, int]]
Answerer = Callable[[Sequence[Picture]], Sequence[Answered]]


def load_model(checkpoint: str | Path, dtype: str = "float32") -> "Model":
    """Loads a checkpoint; with several devices each of them answers a part of every batch.

    Raises CheckpointError where it cannot be read, see `smolrgpt_jax.load`.
    """
    import jax

    import smolrgpt_jax
    from smolrgpt_jax import sharding

    devices = jax.local_devices()
    mesh = sharding.make_mesh(devices=devices) if len(devices) > 1 else None
    return smolrgpt_jax.load(checkpoint, compute_dtype=dtype, mesh=mesh)


def is_first_process() -> bool:
    """Whether this process writes the results; the others only answer."""
    import jax

    return jax.process_index() == 0


def run_details(model: "Model", module: str = "eval.warehouse", **details: Any) -> dict[str, Any]:
    """What the report says of a run: the command, the details, the parameters' fingerprint, and the configuration.

    A checkpoint of our training also tells the stage's run configuration and seed. The fingerprint is the same for the
    same numbers, whatever folder or format they come from and whatever devices they lie on. In a run of several
    processes all of them call this, since Orbax reads on all together.
    """
    from smolrgpt_jax.checkpoint.fingerprint import params_fingerprint

    config = {"model": model.config.to_dict(), "compute": dataclasses.asdict(model.compute)}
    if model.run is not None:
        config["training"] = model.run
        details["seed"] = model.run.get("run", {}).get("seed")
    details["parameters"] = sum(array.size for array in model.params.values())
    details |= {FINGERPRINT: params_fingerprint(model.params), "config": config}
    return {"command": typed_command(module), **details}


def answer_questions(
    model: "Model", pictures: Sequence[Picture], options: "AnswerOptions", out: Path | None = None, part: str = FIRST
) -> list[Answered]:
    """Asks a model all questions; returns its texts in their order, "" for those it could not be asked.

    {"answer", "cut_off"} stands for a text that the longest length cut, and {"answer", "closing"} for every one where
    `options.closing` asks for values. Beside `out`, a folder of results, finished answers are kept until
    `remove_journal`: a call that was interrupted goes on from them. `part`: of JOURNAL_PARTS.
    """
    from eval.answering.journal import open_journal
    from smolrgpt_jax.generation.answers import GeneratedAnswer, generate_answers

    kept = None if out is None else open_journal(journal_path(out, part), model, pictures, options)
    found = generate_answers(model, pictures, options, kept)
    answers: list[Answered] = []
    for question in (question for picture in pictures for question in picture.questions):
        given = found.get(question.id, GeneratedAnswer(""))
        said: dict[str, str | bool | None] = {"answer": given.text}
        if options.closing is not None:
            said["closing"] = None if given.value is None else str(given.value)
        if given.cut_off:
            said["cut_off"] = True
        answers.append(said if len(said) > 1 else given.text)
    return answers


def timed_answers(
    answerer: Answerer, pictures: Sequence[Picture], out: str | Path
) -> tuple[Sequence[Answered], float | None]:
    """What is answered, and the seconds it took; None of a run that goes on from answers that were kept."""
    from eval.answering.journal import journal_files

    kept = any(journal_files(journal_path(out, part)) for part in JOURNAL_PARTS)
    began = time.monotonic()
    answers = answerer(pictures)
    return answers, None if kept else time.monotonic() - began


def asked_category(question: Question) -> str:
    """The category of a question, by its wording where the record does not tell."""
    return question.category or question_category(question.prompt) or ""


def described(answer: Answered) -> Mapping[str, str | bool | float | None]:
    """What is said of one question, as a dict."""
    return {"answer": answer} if isinstance(answer, str) else answer


def journal_path(out: str | Path, part: str = FIRST) -> Path:
    """Where the finished answers of a run that writes to `out` are kept until its results are written."""
    out = Path(os.path.realpath(out))
    return out.with_name(f".{out.name}.journal" + (f".{part}" if part else ""))


def remove_journal(out: str | Path) -> None:
    """Removes the kept answers, after the results have been written.

    All processes call this, as hosts without a common disk keep theirs to themselves; they wait for the one that writes.
    """
    from eval.answering.journal import journal_files
    from smolrgpt_jax.distributed import gather

    gather(None)
    for part in JOURNAL_PARTS:
        for file in journal_files(journal_path(out, part)):
            file.unlink(missing_ok=True)
