"""Validation during training: the loss on held-out rows, scores of generated answers, and which validation was the best."""

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh

from smolrgpt_jax import sharding
from smolrgpt_jax.checkpoint.load import Checkpoint
from smolrgpt_jax.config import Compute
from smolrgpt_jax.data.batches import Order, train_batches
from smolrgpt_jax.data.records import BadRecords, Picture, spread, spread_questions
from smolrgpt_jax.data.rows import RowShape
from smolrgpt_jax.distributed import StopTogether
from smolrgpt_jax.errors import RunError
from smolrgpt_jax.generation.answers import generate_answers
from smolrgpt_jax.generation.engine import AnswerOptions
from smolrgpt_jax.model import Model
from smolrgpt_jax.models.smolrgpt import Params
from smolrgpt_jax.training.data import most_answers, naming, read_rows
from smolrgpt_jax.training.step import Batch, batch_loss, gathered

LOSS = "validation_loss"
ANSWER_ROWS = 64  # questions answered at once


@dataclasses.dataclass(frozen=True)
class AnswerScorer:
    """Scores of free-text answers."""

    columns: tuple[str, ...]  # names of the scores
    # (pictures, {question id: answer}) -> {name: value}, None for what does not apply.
    score: Callable[[Sequence[Picture], Mapping[str, str]], Mapping[str, float | None]]


class Validation:
    """Called with parameters (float32, sharded as in training) it returns {name: value} of `columns`, None if it was stopped.

    validation_loss is the mean per answer token over `validation_rows` rows; the scores are of answers to `validation_answers`
    questions. Both are always the same ones, on any number of processes, and spread evenly over the whole data.

    rows: of the validation sources; stop: asked between batches and answers, if there is one.
    """

    stop: StopTogether | None = None

    def __init__(
        self,
        run: Mapping[str, Any],
        start: Checkpoint,
        compute: Compute,
        shape: RowShape,
        mesh: Mesh,
        bad: BadRecords,
        scorer: AnswerScorer | None = None,
    ):
        """Reads the validation sources of a run.

        Raises RunError if there is nothing to validate with or answers are to be scored without a scorer, DataError for a bad
        record under "error".
        """
        self._run, self._start, self._compute, self._mesh, self._bad = run, start, compute, mesh, bad
        data = {**run["data"], "weights": {}}
        with naming("validation_sources"):
            asked: dict[str, Any] = {"shape": shape, "replicated": sharding.is_replicated(mesh)}
            self.rows, pictures = read_rows(data, run["validation_sources"], start, bad, **asked)
        compute = compute.replace(answers=most_answers(self.rows))
        # The plan is sorted by size.
        chosen = spread(sum(map(len, self.rows)), run["validation_rows"])
        self._order = Order(run["batch_rows"], seed=0, chosen=chosen)

        @functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
        def loss_sums(params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
            with sharding.over(mesh):
                return batch_loss(start.config, gathered(params, compute, mesh, run["strategy"]), {}, batch, compute)

        self._eval_step = loss_sums
        self.columns: tuple[str, ...] = (LOSS,)
        self._scorer, self._asked = None, []
        if run["validation_answers"]:
            if scorer is None:
                raise RunError("config.validation_answers needs a scorer of answers, which this program has not")
            self._scorer = scorer
            self.columns += scorer.columns
            self._asked = draw_questions(pictures, run["validation_answers"])
            if not self._asked:
                raise RunError("config.validation_answers: no validation question has a normalized answer")

    def __call__(self, params: Params) -> dict[str, float] | None:
        loss = self._loss(params)
        if loss is None:
            return None
        found = {LOSS: loss}
        if self._scorer is not None:
            compute = self._compute.replace(remat="none", attention="xla")
            model = Model(self._start.config, _on_this_process(params), self._start.tokenizer, compute=compute)
            tokens, depth = self._run["validation_answer_tokens"], self._run["data"]["depth_mode"]
            stop: Callable[[], bool] = bool if self.stop is None else self.stop.heard
            options = AnswerOptions(ANSWER_ROWS, tokens, depth, on_bad_record=self._bad, progress=False, stop=stop)
            answers = {name: given.text for name, given in generate_answers(model, self._asked, options).items()}
            if self.stop is not None and self.stop.now():
                return None
            scores = self._scorer.score(self._asked, answers)
            found |= {name: float(value) for name, value in scores.items() if value is not None}
        return found

    def _loss(self, params: Params) -> float | None:
        share = sharding.process_rows(self._mesh, self._order.batch_rows)
        put = functools.partial(sharding.put_batch, mesh=self._mesh)
        batches = train_batches(self.rows, self._order, share=share, put=put)
        total = count = 0.0
        with contextlib.closing(batches):
            for batch in batches:
                if self.stop is not None and self.stop():
                    return None
                loss, tokens = self._eval_step(params, batch)
                total, count = total + float(loss), count + float(tokens)
        # A mean over no tokens would be 0, the best of all losses.
        if not count:
            raise RunError("config.validation_sources: the rows that were drawn hold no token of an answer")
        return total / count


def _on_this_process(params: Params) -> Params:
    """The parameters whole on a device of this process where they lie on those of several: each answers its own questions."""
    if jax.process_count() == 1:
        return params
    device = jax.local_devices()[0]
    return {n: jax.device_put(process_allgather(v, tiled=True), device) for n, v in params.items()}


def draw_questions(pictures: Sequence[Picture], count: int) -> list[Picture]:
    """`count` questions with a normalized answer (all if there are fewer), spread evenly and always the same.

    Their ids get a number in front: several sources may use the same ones.
    """
    number = itertools.count(1)

    def known(picture: Picture) -> Picture:
        asked = [question for question in picture.questions if question.normalized_answer is not None]
        named = (dataclasses.replace(question, id=f"{next(number)}: {question.id}") for question in asked)
        return dataclasses.replace(picture, questions=tuple(named))

    return spread_questions([known(picture) for picture in pictures], count)


@dataclasses.dataclass
class Selection:
    """The course of one metric over the validations: which was the best, and when to stop waiting for a better one."""

    metric: str  # its name; of a loss lower is better, of anything else higher
    patience: int = 0  # validations without a better one that end the run, 0 for no end
    best: float | None = None
    best_step: int | None = None
    worse: int = 0  # validations since the best

    def check(self, columns: Collection[str]) -> None:
        """Raises RunError if validations do not have the metric."""
        if self.metric not in columns:
            raise RunError(f"config.best_metric {self.metric!r} is not one of {', '.join(columns)}")

    def add(self, step: int, values: Mapping[str, float]) -> bool:
        """Takes in a validation; returns whether it is the best so far. NaN never is. Raises RunError if the metric is missing."""
        self.check(values)
        value = values[self.metric]
        sign = 1.0 if self.metric.endswith("loss") else -1.0
        if not math.isnan(value) and (self.best is None or sign * value < sign * self.best):
            self.best, self.best_step, self.worse = float(value), step, 0
            return True
        self.worse += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether the patience is over."""
        return 0 < self.patience <= self.worse

    def __str__(self) -> str:
        if self.best is None:
            return f"no {self.metric} that is a number in {self.worse} validations"
        return f"no better {self.metric} in {self.worse} validations than {self.best:.4g} at step {self.best_step}"

    def state(self) -> dict[str, Any]:
        """What a later run gives to `dataclasses.replace` to go on from here; JSON types."""
        return {"best": self.best, "best_step": self.best_step, "worse": self.worse}
