"""What a run reads before its first step: the model it starts from and its packed rows."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from smolrgpt_jax.checkpoint.load import read_checkpoint
from smolrgpt_jax.checkpoint.safetensors_folder import TorchLayout
from smolrgpt_jax.config import PRESETS, Compute, SmolRGPTConfig
from smolrgpt_jax.data.batches import PackedRows
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.pictures import FileLoader
from smolrgpt_jax.data.plan import choose_row_tokens
from smolrgpt_jax.data.records import BadRecords, Picture
from smolrgpt_jax.data.rows import RowShape, TokenisedQuestions
from smolrgpt_jax.data.sources.formats import read_sources
from smolrgpt_jax.errors import CheckpointError, DataError, RunError
from smolrgpt_jax.models.attention import resolve_attention
from smolrgpt_jax.models.smolrgpt import abstract_params, init_params
from smolrgpt_jax.training.settings import check_order
from smolrgpt_jax.training.stages import STAGES


@contextlib.contextmanager
def naming(setting: str) -> Iterator[None]:
    """Turns a ValueError into a RunError that names the setting; one that names its file or record already passes."""
    try:
        yield
    except (RunError, DataError, CheckpointError):
        raise
    except ValueError as error:
        raise RunError(f"config.{setting}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Start:
    """What a run starts from: configuration, parameters (NumPy; None: random ones), tokenizer and the PyTorch layout."""

    config: SmolRGPTConfig
    params: Mapping[str, np.ndarray] | None
    tokenizer: ChatTokenizer | None
    layout: TorchLayout | None


def read_start(run: Mapping[str, Any]) -> Start:
    """Reads `init_from` (a PyTorch folder, a checkpoint or a work directory), or takes the preset with random parameters.

    Raises RunError when the tokenizer does not fit the model's vocabulary or the stage makes no sense after that which the
    parameters come from, CheckpointError when these cannot be read or do not fit their configuration.
    """
    if not run["init_from"]:
        _check_order(run, None)
        start = Start(PRESETS[run["model"]["preset"]], None, None, None)
    else:
        read = read_checkpoint(run["init_from"])
        # Imported checkpoints do not tell their stage.
        if read.stage is not None:
            _check_order(run, read.stage)
        start = Start(read.config, read.params, read.tokenizer, read.layout)
    tokenizer = ChatTokenizer.load(run["tokenizer"]) if run["tokenizer"] else start.tokenizer
    if tokenizer is None:
        raise RunError("config.tokenizer names no tokenizer and init_from brings none")
    tokenizer = tokenizer.with_format(**{name: run["data"][name] for name in ("region_names", "closing_answer")})
    if tokenizer.vocab_size != start.config.decoder.vocab_size:
        raise RunError(f"the tokenizer has {tokenizer.vocab_size} tokens, the model {start.config.decoder.vocab_size}")
    return dataclasses.replace(start, tokenizer=tokenizer)


def drawn_anew(run: Mapping[str, Any], config: SmolRGPTConfig) -> dict[str, np.ndarray]:
    """The parameters of the run's `fresh` groups, drawn from its seed; float32. Raises ValueError for a group that does not exist."""
    stage = STAGES[run["stage"]]
    names = {name for group in run["fresh"] for name in stage.members(group, abstract_params(config))}
    # Compiled as a whole, so that nothing else is drawn.
    draw = jax.jit(lambda key: {n: v for n, v in init_params(config, key).items() if n in names})
    return {name: np.asarray(value) for name, value in draw(jax.random.key(run["seed"])).items()}


def _check_order(run: Mapping[str, Any], previous: str | None) -> None:
    try:
        check_order(run, previous)
    except ValueError as error:
        raise RunError(str(error)) from None


def run_compute(config: SmolRGPTConfig, run: Mapping[str, Any], platform: str, row_tokens: int) -> Compute:
    """How a run computes the model on devices of a platform ("tpu", "gpu", "cpu"), in rows of so many tokens.

    Raises ValueError for an attention that the platform does not have.
    """
    model = run["model"]
    attention = resolve_attention(model["attention"], platform, row_tokens)
    return Compute.of(config, dtype=model["compute_dtype"], remat=model["remat"], attention=attention)


Tokenised = tuple[Sequence[Picture], TokenisedQuestions]


def row_shape(
    config: SmolRGPTConfig, data: Mapping[str, Any], regions: bool, tokenised: Sequence[Tokenised] = ()
) -> RowShape:
    """The static sizes of a packed row for this model; `tokenised` is what a row length of 0 is chosen for."""
    shape = RowShape(
        tokens=data["row_tokens"],
        pictures=data["row_pictures"],
        regions=data["row_regions"] if regions else 0,
        image_tokens=config.image_tokens,
        image_size=config.vision.image_size,
        mask_grid=config.mask_grid,
    )
    if shape.tokens == 0:
        shape = dataclasses.replace(shape, tokens=choose_row_tokens(tokenised, shape, data["max_row_tokens"]))
    return shape


def read_data(
    data: Mapping[str, Any], sources: Mapping[str, Any], tokenizer: ChatTokenizer, bad: BadRecords
) -> list[Tokenised]:
    """The pictures of all sources and their tokens, or those of each source where the sources are mixed by weight."""
    groups = [[sources[name]] for name in data["weights"]] if data["weights"] else [list(sources.values())]
    found = [read_sources(group, bad) for group in groups]
    return [(pictures, TokenisedQuestions(pictures, tokenizer)) for pictures in found]


def packed_rows(
    data: Mapping[str, Any], tokenised: Sequence[Tokenised], tokenizer: ChatTokenizer, shape: RowShape, bad: BadRecords
) -> list[PackedRows]:
    """The packed rows of each of `read_data`; raises ValueError if there are none."""
    load = FileLoader(shape, data["depth_mode"], cached_pictures=data["cached_pictures"])
    rows = [
        PackedRows(
            pictures, tokenizer, shape, load=load, depth_mode=data["depth_mode"], on_bad_record=bad, questions=questions
        )
        for pictures, questions in tokenised
    ]
    if not all(map(len, rows)):
        raise ValueError("no question that can be used, in all sources or in one that is mixed by weight")
    return rows


def total_steps(run: Mapping[str, Any], rows: list[PackedRows]) -> int:
    """Steps that the learning rates are planned for: `steps`, or `epochs` over all packed rows."""
    return int(run["steps"]) or _steps_of(run["epochs"], run, rows)


def last_step(run: Mapping[str, Any], rows: list[PackedRows]) -> int:
    """The step that the run ends with: that after `stop_epochs` where it is given and comes before the last planned one."""
    planned = total_steps(run, rows)
    return min(planned, _steps_of(run["stop_epochs"], run, rows)) if run["stop_epochs"] else planned


def _steps_of(epochs: float, run: Mapping[str, Any], rows: list[PackedRows]) -> int:
    return math.ceil(epochs * sum(map(len, rows)) / run["batch_rows"])
