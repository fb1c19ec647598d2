"""How likely a model finds answers that are known already, whoever wrote them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from smolrgpt_jax import sharding
from smolrgpt_jax.config import Compute, SmolRGPTConfig
from smolrgpt_jax.data.batches import PackedRows
from smolrgpt_jax.data.records import BadRecords, Picture
from smolrgpt_jax.data.rows import FileLoader, RowShape, TokenisedQuestions
from smolrgpt_jax.generation.engine import AskedModel, params_mesh
from smolrgpt_jax.models.smolrgpt import Params, at_answers, bind

ROW_TOKENS, ROW_PICTURES = 768, 2


def log_likelihoods(
    model: AskedModel,
    pictures: Sequence[Picture],
    answers: Mapping[str, str],
    *,
    batch_rows: int = 8,
    depth_mode: str = "training",
    on_bad_record: BadRecords = BadRecords("error"),
) -> dict[str, float]:
    """Natural logarithms of the probabilities of answers, their ends included: {question id: float}.

    Args:
      answers: texts by question id; questions without one are left out.
      batch_rows: packed rows at once (a multiple of it where the devices need more).
      depth_mode: see `images.read_depth`.
      on_bad_record: what to do with a question that cannot be asked.

    Raises ValueError if the model has no tokenizer, DataError for a bad record.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise ValueError("the checkpoint brings no tokenizer, answers cannot be read")
    mesh, found = params_mesh(model.params), dict[str, float]()
    said = [_said(picture, answers) for picture in pictures]
    for with_regions in (False, True):
        group = [p for p in said if p.questions and any(q.regions for q in p.questions) == with_regions]
        if not group:
            continue
        questions = TokenisedQuestions(group, tokenizer)
        config, longest = model.config, tokenizer.prefix(model.config.image_tokens).size + questions.longest()
        regions = max(len({region for q in p.questions for region in q.regions}) for p in group)
        sizes = (config.image_tokens, config.vision.image_size, config.mask_grid)
        shape = RowShape(max(ROW_TOKENS, longest), ROW_PICTURES, regions, *sizes)
        load = FileLoader(shape, depth_mode, cached_pictures=ROW_PICTURES)
        rows = PackedRows(group, tokenizer, shape, load=load, on_bad_record=on_bad_record, questions=questions)
        ways = 1 if mesh is None else sharding.batch_ways(mesh)
        size = -(-min(batch_rows, len(rows)) // ways) * ways
        compute = model.compute.replace(remat="none", attention="xla", answers=rows.plan.answers)
        most = max(len(rows.question_ids(number)) for number in range(len(rows)))
        put: Any = jax.device_put if mesh is None else functools.partial(sharding.put_batch, mesh=mesh)
        for begin in range(0, len(rows), size):
            numbers = list(range(begin, min(begin + size, len(rows))))
            batch = put(rows.batch(numbers + [-1] * (size - len(numbers))))
            with sharding.over(mesh):
                sums = jax.device_get(_sums(model.params, batch, config=config, compute=compute, most=most))
            for number, row in zip(numbers, sums):
                found |= {name: float(value) for name, value in zip(rows.question_ids(number), row)}
    return found


def _said(picture: Picture, answers: Mapping[str, str]) -> Picture:
    # Without their values, with which the texts of a model that closes its answers would be closed once more.
    known = (q for q in picture.questions if q.id in answers)
    kept = [dataclasses.replace(q, answer=answers[q.id], normalized_answer=None) for q in known]
    return dataclasses.replace(picture, questions=tuple(kept))


@functools.partial(jax.jit, static_argnames=("config", "compute", "most"))
def _sums(
    params: Params, batch: Mapping[str, jax.Array], *, config: SmolRGPTConfig, compute: Compute, most: int
) -> jax.Array:
    """Of each row's questions the sum over the answers' tokens, float32[B, most]."""
    model, targets = bind(config, params, compute), batch["targets"]
    kept = [batch["question_ids"], targets]
    hidden, (asked, labels) = model.states(batch)["hidden"], kept
    if compute.answers < targets.shape[1]:
        hidden, asked, labels = (at_answers(x, targets, compute.answers) for x in (hidden, *kept))
    logits = model.decoder.logits(hidden)
    picked = jnp.take_along_axis(logits, jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    likely = jnp.where(labels >= 0, picked - jax.nn.logsumexp(logits, axis=-1), 0.0)
    return jnp.einsum("ba,baq->bq", likely, jax.nn.one_hot(asked - 1, most), precision="highest")
