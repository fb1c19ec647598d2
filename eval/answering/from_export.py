"""Questions asked of an exported folder, as its run.py asks them."""

from collections.abc import Sequence
from pathlib import Path

from eval.answering.asking import Answered, journal_path
from eval.answering.http_answers import NoAnswer, Said, ask_all
from smolrgpt_jax.data.masks import RLE
from smolrgpt_jax.data.records import BadRecords, Picture, Question
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.export.exported import MANIFEST, ExportedFolder, export_format, sha256, written


class Exported:
    """The programs of a folder that `smolrgpt export` wrote, for ONNX Runtime or JAX."""

    def __init__(self, folder: Path):
        """Raises ValueError where the folder is none, is damaged or cannot run here, ImportError without onnxruntime."""
        from smolrgpt_jax.export import onnx_runner

        self.model: ExportedFolder
        if export_format(folder) == onnx_runner.FORMAT:
            self.model = onnx_runner.ExportedModel(folder)
        else:
            from smolrgpt_jax.export import runner

            self.model = runner.ExportedModel(folder)
        self.digest = sha256(self.model.folder / MANIFEST)  # which holds the checksums of all else

    def answer(
        self, pictures: Sequence[Picture], out: Path, at_once: int, max_new_tokens: int | None, bad: BadRecords
    ) -> list[Answered]:
        """As `asking.answer_questions`; finished answers are kept beside `out`, too.

        at_once: 1, as the programs are for one thread. Raises ValueError for more new tokens than were exported.
        """
        from eval.answering.journal import Journal, asked_digest

        longest = self.model.new_tokens(max_new_tokens)
        identity = {"export": self.digest, "decoding": longest, "data": asked_digest(pictures)}

        def ask(picture: Picture, question: Question) -> Said:
            return self._ask(picture, question, longest)

        return ask_all(pictures, ask, Journal(journal_path(out), identity), at_once, bad, str(self.model.folder))

    def _ask(self, picture: Picture, question: Question, longest: int) -> Said:
        if question.earlier:
            raise DataError(f"record {question.id!r} is a conversation, an export answers questions by themselves")
        regions = [region for region in question.regions if isinstance(region, RLE)]
        if regions and picture.depth is None:
            raise DataError(f"record {question.id!r} asks about regions of a picture without depth")
        try:
            (ids,) = written(self.model, picture.image, picture.depth, regions, [question.prompt], longest)
        except DataError:
            raise
        except ValueError as error:
            raise NoAnswer(f"record {question.id!r}: {error}") from None
        return Said(self.model.text(ids), self.model.manifest["token_ids"]["eos"] not in ids)
