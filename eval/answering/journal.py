"""Finished answers kept on disk, so that an interrupted evaluation goes on where it was.

JSON lines: what run the answers are of, then one line per batch of finished answers, {question id: text}, or
{question id: {"cut_off": text}} for a text that did not end within its tokens. Of a server's answer {"answer": text} or
{"cut_off": text} says beside it what it took, "tokens", and how sure it is, "confidence".
"""

import dataclasses
import glob
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO

import jax

from smolrgpt_jax import distributed
from smolrgpt_jax.checkpoint.fingerprint import digest, params_fingerprint
from smolrgpt_jax.data.prepared.reader import told_by
from smolrgpt_jax.data.records import Picture
from smolrgpt_jax.files import check_out
from smolrgpt_jax.generation.engine import AnswerOptions

if TYPE_CHECKING:
    from smolrgpt_jax.model import Model

_TOLD = ("tokens", "confidence")


class Journal:
    """The answers of one run; in a run of several processes, every process reads the files of all and writes its own.

    answers: {question id: text}; cut_off: ids of those whose text did not end within its tokens; told: what a server told of
    answers besides, of _TOLD.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any]):
        """Reads what there is.

        Raises ValueError for a file that is no journal or whose run had another identity, and for a folder where nothing can be
        written, before anything is answered for it.
        """
        self.path = Path(path)
        check_out(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.identity = json.loads(json.dumps(identity))
        self.answers: dict[str, str] = {}
        self.cut_off: set[str] = set()
        self.told: dict[str, dict[str, Any]] = {}
        for file in journal_files(path):
            self._read(file)
        if jax.process_count() > 1:
            self.path = self.path.with_name(f"{self.path.name}.{jax.process_index()}")
        self._file: BinaryIO | None = None

    def _read(self, file: Path) -> None:
        # A process that was killed may have left half a line.
        *lines, _ = file.read_bytes().split(b"\n")
        if not lines:
            return
        try:
            identity, *batches = [json.loads(line) for line in lines]
            kept = {question: said for batch in batches for question, said in batch.items()}
            told = {question: {"answer": said} if isinstance(said, str) else said for question, said in kept.items()}
            cut_off = {question for question, said in told.items() if "cut_off" in said}
            answers = {q: said["cut_off" if q in cut_off else "answer"] for q, said in told.items()}
            besides = {question: {n: said[n] for n in _TOLD if n in said} for question, said in told.items()}
            different = [name for name in self.identity if identity[name] != self.identity[name]]
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            raise ValueError(f"{file} is no journal of answers; remove it to answer all questions") from error
        if different:
            raise ValueError(
                f"{file} holds answers of another run (other {' and '.join(different)}): go on with the command that wrote it, "
                "or remove it to answer all questions"
            )
        self.answers.update(answers)
        self.cut_off |= cut_off
        self.told |= {question: found for question, found in besides.items() if found}

    def append(
        self,
        answers: Mapping[str, str],
        cut_off: Collection[str] = (),
        told: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ) -> None:
        """Adds finished answers, some of them cut off, and what was told of some; they are on disk when this returns."""
        line: dict[str, Any] = {q: {"cut_off": text} if q in cut_off else text for q, text in answers.items()}
        for question, besides in told.items():
            said = line[question]
            line[question] = {**(said if isinstance(said, dict) else {"answer": said}), **besides}
        lines: list[Mapping[str, Any]] = [line]
        if self._file is None:
            self._file = open(self.path, "ab")
            whole = self.path.read_bytes().rfind(b"\n") + 1
            self._file.truncate(whole)
            if not whole:
                lines.insert(0, self.identity)
        self._file.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        self._file.flush()
        os.fsync(self._file.fileno())


def journal_files(path: str | Path) -> list[Path]:
    """All files of a journal, whatever the number of processes that wrote it."""
    path = Path(path)
    others = path.parent.glob(f"{glob.escape(path.name)}.*")
    numbered = [file for file in others if file.name.removeprefix(f"{path.name}.").isdecimal()]
    return [file for file in (path, *sorted(numbered)) if file.is_file()]


def asked_digest(pictures: Sequence[Picture]) -> str:
    """A hash of questions and of the files that they are about, without what is published as answers."""
    every = [(picture.id, question) for picture in pictures for question in picture.questions]
    asked = [(name, dataclasses.replace(question, answer=None, normalized_answer=None)) for name, question in every]
    return digest(repr((asked, [told_by(picture) for picture in pictures])))


def open_journal(path: str | Path, model: "Model", pictures: Sequence[Picture], options: AnswerOptions) -> Journal:
    """The journal of the answers that a model gives to these questions, see `generate_answers`.

    Raises ValueError as `Journal`, and RunError where several processes would answer other questions or with other models.
    """
    decoding = {name: getattr(options, name) for name in ("max_new_tokens", "seed", "depth_mode", "closing")}
    identity = {
        "parameters": params_fingerprint(model.params),
        "configuration": model.config.to_dict() | {"chat_format": model.tokenizer.format.differences()},
        "compute": dataclasses.asdict(model.compute),
        "decoding": decoding | {"sampling": dataclasses.asdict(options.sampling)},
        "data": asked_digest(pictures),
    }
    distributed.check_alike(identity | {"configuration": digest(identity["configuration"])})
    return Journal(path, identity)
