"""What a run reads before its first step: the model it starts from and its packed rows."""

import contextlib
import dataclasses
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from smolrgpt_jax.checkpoint.load import Checkpoint, read_checkpoint
from smolrgpt_jax.config import PRESETS, Compute, SmolRGPTConfig
from smolrgpt_jax.data.batches import AHEAD, PREFETCH, PackedRows
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.kept import place_of
from smolrgpt_jax.data.plan import choose_row_tokens
from smolrgpt_jax.data.records import BadRecords, Picture, merge_pictures
from smolrgpt_jax.data.rows import FileLoader, RowShape, TokenisedQuestions, empty_batch
from smolrgpt_jax.data.sources.formats import read_source
from smolrgpt_jax.errors import CheckpointError, DataError, RunError
from smolrgpt_jax.models.attention import resolve_attention
from smolrgpt_jax.training.stages import Stage

ANSWER_STEP = 64


@contextlib.contextmanager
def naming(setting: str) -> Iterator[None]:
    """Turns a ValueError into a RunError that names the setting; one that names its file or record already passes."""
    try:
        yield
    except (RunError, DataError, CheckpointError):
        raise
    except ValueError as error:
        raise RunError(f"config.{setting}: {error}") from error


def read_start(run: Mapping[str, Any], stage: Stage) -> Checkpoint:
    """Reads `init_from` (a PyTorch folder, a checkpoint or a work directory), or takes the preset with no parameters: random ones.

    Raises RunError when the tokenizer does not fit the model's vocabulary or the stage makes no sense after that which the
    parameters come from, CheckpointError when these cannot be read or do not fit their configuration.
    """
    if run["init_from"]:
        start = read_checkpoint(run["init_from"])
    else:
        start = Checkpoint(PRESETS[run["model"]["preset"]], {})
    # Imported checkpoints do not tell their stage.
    if not start.params or start.stage is not None:
        stage.check_order(start.stage)
    tokenizer = ChatTokenizer.load(run["tokenizer"]) if run["tokenizer"] else start.tokenizer
    if tokenizer is None:
        raise RunError("config.tokenizer names no tokenizer and init_from brings none")
    changes = {name: run["data"][name] for name in ("region_names", "closing_answer")}
    seen = None if start.tokenizer is None else start.tokenizer.format.trained_on
    tokenizer = tokenizer.with_format(**changes, trained_on=seen)
    if tokenizer.vocab_size != start.config.decoder.vocab_size:
        raise RunError(f"the tokenizer has {tokenizer.vocab_size} tokens, the model {start.config.decoder.vocab_size}")
    return dataclasses.replace(start, tokenizer=tokenizer)


def check_shared_memory(config: SmolRGPTConfig, run: Mapping[str, Any], regions: bool) -> None:
    """Raises RunError where worker processes could not hand over their batches: containers have 64 MB by default."""
    data, folder = run["data"], "/dev/shm"
    if not data["workers"] or not os.path.isdir(folder):
        return
    shape = row_shape(config, {**data, "row_tokens": data["row_tokens"] or data["max_row_tokens"]}, regions)
    row = sum(value.nbytes for value in empty_batch(1, shape, 0).values())
    # Each worker's batches wait on both sides, and some are on their way to the devices: so many were there at most.
    batches = 2 * (PREFETCH + 1) * data["workers"] + PREFETCH + AHEAD + 1
    rows = batches * run["batch_rows"] // jax.process_count()
    needed, free = (size / 2**20 for size in (rows * row, shutil.disk_usage(folder).free))
    if needed > free:
        raise RunError(
            f"config.data.workers={data['workers']} needs {needed:.0f} MiB of {folder}, through which workers hand over batches, and "
            f"{free:.0f} MiB are free: give it more (docker run --shm-size), or set config.data.workers=0"
        )


def run_compute(config: SmolRGPTConfig, run: Mapping[str, Any], platform: str, row_tokens: int) -> Compute:
    """How a run computes the model on devices of a platform ("tpu", "gpu", "cpu"), in rows of so many tokens.

    Under remat "auto" all is computed again, until the shape of the rows is known (see `memory.choose_remat`).

    Raises ValueError for an attention that the platform does not have.
    """
    model = run["model"]
    heads = (config.vision.width // config.vision.heads, config.decoder.head_dim)
    attention = resolve_attention(model["attention"], platform, row_tokens, model["compute_dtype"], heads)
    remat = "full" if model["remat"] == "auto" else model["remat"]
    return Compute.of(config, dtype=model["compute_dtype"], remat=remat, attention=attention)


def row_shape(
    config: SmolRGPTConfig,
    data: Mapping[str, Any],
    regions: bool,
    tokenised: Sequence[tuple[Sequence[Picture], TokenisedQuestions]] = (),
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


def read_rows(
    data: Mapping[str, Any],
    sources: Mapping[str, Any],
    start: Checkpoint,
    bad: BadRecords,
    *,
    regions: bool = True,
    shape: RowShape | None = None,
    question_balance: float = 0.0,
    replicated: bool = False,
) -> tuple[list[PackedRows], list[Picture]]:
    """The packed rows of all sources, or of each source where they are mixed by weight, and their pictures.

    regions: whether the rows have any; shape: of the rows, by default what the settings ask for; replicated: whether several
    processes build the same rows. A picture that cannot be read is then an error whatever `bad` says, as it may be readable to the
    others. Raises ValueError where there is no row, DataError for a bad record that `bad` does not let pass.
    """
    groups = [[sources[name]] for name in data["weights"]] if data["weights"] else [list(sources.values())]
    # The questions that several sources ask about one picture file come together.
    found = [merge_pictures([read_source(source, bad) for source in group], bad) for group in groups]
    tokenizer: Any = start.tokenizer
    places = [place_of(pictures, tokenizer, data["cache"]) for pictures in found]
    tokenised = [(p, TokenisedQuestions(p, tokenizer, place=place)) for p, place in zip(found, places)]
    shape = shape or row_shape(start.config, data, regions, tokenised)
    load = FileLoader(shape, data["depth_mode"], cached_pictures=data["cached_pictures"])
    common: dict[str, Any] = {"load": load, "on_bad_record": bad, "question_balance": question_balance}
    rows = [PackedRows(pictures, tokenizer, shape, questions=ids, **common) for pictures, ids in tokenised]
    if not all(map(len, rows)):
        raise ValueError("no question that can be used, in all sources or in one that is mixed by weight")
    for packed in rows if replicated else ():
        packed.bad = BadRecords("error")
    return rows, [picture for pictures in found for picture in pictures]


def most_answers(rows: Sequence[PackedRows]) -> int:
    """`Compute.answers` for these rows: the most answer tokens of one of them, up to a multiple of ANSWER_STEP for few different programs."""
    return -(-max(packed.plan.answers for packed in rows) // ANSWER_STEP) * ANSWER_STEP


def run_lengths(run: Mapping[str, Any], rows: Sequence[PackedRows]) -> tuple[int, int]:
    """Steps that the learning rates are planned for, and those after which the run ends: fewer with `stop_epochs`."""

    def steps_of(epochs: float) -> int:
        return math.ceil(epochs * sum(map(len, rows)) / run["batch_rows"])

    planned = int(run["steps"]) or steps_of(run["epochs"])
    return planned, min(planned, steps_of(run["stop_epochs"])) if run["stop_epochs"] else planned
