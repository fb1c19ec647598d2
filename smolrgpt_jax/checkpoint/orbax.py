"""Orbax, behind one file.

A checkpoint folder holds two items: `params` (the flat parameter dict) and `meta` (JSON: configuration, tokenizer
files, the PyTorch layout it was imported with, and for a training step its stage, settings and the position in the
data). A training checkpoint adds `opt_state`, and lies under <workdir>/checkpoints/<step>.
"""

from __future__ import annotations

import functools
import logging
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from orbax.checkpoint.checkpoint_managers import preservation_policy

from smolrgpt_jax.checkpoint.streaming import (
    ArrayInfo,
    Piece,
    StreamedParams,
    is_stacked,
    pieces_of,
    read_ahead,
    streamed,
)
from smolrgpt_jax.checkpoint.torch import TorchLayout
from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.errors import CheckpointError
from smolrgpt_jax.files import new_folder

# Orbax's advice to its own developers, once per parameter of every checkpoint that is opened, and tracebacks of errors that it
# raises again.
_NOISE = ("ParamInfo(name=", "No jax.Array in TypeHandler", "Skipping merge of OCDBT", "_SignalingThread.run() raised")
logging.getLogger("absl").addFilter(lambda record: not any(noise in str(record.msg) for noise in _NOISE))

FORMAT = "smolrgpt_jax"
STEPS = "checkpoints"
BEST = "best"
WRITES_UNDER_WAY = 2


@dataclass(frozen=True)
class Meta:
    """What a checkpoint says of itself.

    tokenizer: {file name: text} of the tokenizer's folder; layout: as imported from PyTorch, if it was; run: step, stage,
    metrics and the run's configuration for a training checkpoint.
    """

    config: SmolRGPTConfig
    tokenizer: dict[str, str] | None = None
    layout: TorchLayout | None = None
    run: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "config": self.config.to_dict(),
            "tokenizer": self.tokenizer,
            "torch_layout": None if self.layout is None else self.layout.to_dict(),
            "run": self.run,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Meta:
        layout = values.get("torch_layout")
        return cls(
            SmolRGPTConfig.from_dict(values["config"]),
            values.get("tokenizer"),
            None if layout is None else TorchLayout.from_dict(layout),
            values.get("run"),
        )


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint folder meant by `path`: itself, the newest step of a training work directory, or its best step where the
    path is WORKDIR/best.

    Raises CheckpointError if there is none.
    """
    path = Path(path).absolute()
    if path.name == BEST and not path.exists() and (path.parent / STEPS).is_dir():
        return _best_checkpoint(path.parent)
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint")
    if path.is_file():
        raise CheckpointError(f"{path} is a file; a checkpoint is a folder")
    if (path / "meta").is_dir():
        return path
    for root in (path / STEPS, path):
        steps = [p for p in root.glob("*") if p.name.isdigit() and (p / "meta").is_dir()]
        if steps:
            return max(steps, key=lambda p: int(p.name))
    raise CheckpointError(
        f"{path} holds no checkpoint: neither a checkpoint folder nor a work directory with {STEPS}/<step>"
    )


def _best_checkpoint(workdir: Path) -> Path:
    newest = find_checkpoint(workdir)
    step = ((read_meta(newest).run or {}).get("selection") or {}).get("best_step")
    if step is None:
        raise CheckpointError(f"{workdir} was not validated yet, so no checkpoint is the best")
    best = newest.with_name(str(step))
    if not (best / "meta").is_dir():
        raise CheckpointError(f"{workdir} has lost its best checkpoint, step {step}")
    return best


class _Leaf:
    """A parameter on its way to the disk: known by shape and dtype, read piece by piece when its turn comes."""

    def __init__(self, params: StreamedParams, name: str):
        info = params.infos[name]
        self.shape, self.dtype, self.size = info.shape, info.dtype, info.size
        self.params, self.name = params, name

    def __deepcopy__(self, memo: dict[int, Any]) -> _Leaf:
        # Orbax's protection against later changes; nothing changes here.
        return self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The whole parameter, for an Orbax that writes it by other means than `_LeafHandler._open_and_write`."""
        return np.asarray(self.params[self.name], dtype)


class _LeafHandler(ocp.type_handlers.NumpyHandler):
    """Writes leaves one after the other and piece by piece; the files are those that NumPy arrays give."""

    async def serialize(
        self,
        values: Sequence[_Leaf],
        infos: Sequence[ocp.type_handlers.ParamInfo],
        args: Sequence[ocp.SaveArgs] | None = None,
    ) -> Sequence[Any]:
        for value, info in zip(values, infos, strict=True):
            # One chunk per layer, so that layers can be written and read alone.
            chunks = ocp.SaveArgs(shard_axes=(0,)) if is_stacked(value.name) else ocp.SaveArgs()
            for written in await super().serialize([value], [info], [chunks]):
                written.result()
        return []

    async def _open_and_write(self, value: _Leaf, tspec: dict[str, Any], ts_context: ts.Context) -> None:
        array = await ts.open(ts.Spec(tspec), create=True, open=True, context=ts_context)
        under_way: deque[Any] = deque()
        for (_, layer), piece in read_ahead(value.params, pieces_of([value.name], value.params)):
            target = array if layer is None else array[layer]
            under_way.append(target.write(piece, can_reference_source_data_indefinitely=True))
            if len(under_way) > WRITES_UNDER_WAY:
                await under_way.popleft()
        for write in under_way:
            await write


def save(path: str | Path, params: Mapping[str, Any], meta: Meta) -> None:
    """Writes a checkpoint folder, whole or not at all, from one process.

    params: read piece by piece where they are streamed. Raises CheckpointError if the folder exists or cannot be written, and
    what reading `params` raises.
    """
    params = streamed(params)
    # Plain files without compression: layers go straight to the disk, and trained float32 weights would shrink by a tenth at
    # several times the cost of writing them.
    handler = ocp.PyTreeCheckpointHandler(
        use_compression=False,
        use_ocdbt=False,
        type_handler_registry=ocp.type_handlers.create_type_handler_registry((_Leaf, _LeafHandler())),
    )
    with new_folder(Path(path)) as aside:
        target = aside / "whole"
        try:
            with ocp.Checkpointer(
                ocp.CompositeCheckpointHandler(params=handler, meta=ocp.JsonCheckpointHandler())
            ) as checkpointer:
                checkpointer.save(
                    target,
                    args=ocp.args.Composite(
                        params=ocp.args.PyTreeSave({name: _Leaf(params, name) for name in params}),
                        meta=ocp.args.JsonSave(meta.to_dict()),
                    ),
                )
        except (CheckpointError, OSError):
            raise
        except (ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} could not be written, nothing was left behind: {_reason(error)}") from error
        for item in target.iterdir():
            item.rename(aside / item.name)
        target.rmdir()


def _reason(error: BaseException) -> str:
    """What went wrong in a few words: TensorStore wraps the system's own in its chain of calls."""
    while error.__cause__ is not None:
        error = error.__cause__
    system = re.search(r"([^:]*) \[os_error_code", str(error))
    return system[1].strip() if system else str(error).split("\n", 1)[0]


def _reader() -> ocp.Checkpointer:
    """Reads single items of a checkpoint folder, of a converted checkpoint as of a training step."""
    trees = {name: ocp.PyTreeCheckpointHandler() for name in ("params", "opt_state")}
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler(**trees, meta=ocp.JsonCheckpointHandler()))


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turns what Orbax and TensorStore raise for a damaged folder into a CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # Orbax raises bare ones
        raise CheckpointError(f"{path} is damaged or no {FORMAT} checkpoint: {_reason(error)}") from error


def read_meta(path: str | Path) -> Meta:
    """The `meta` item of a checkpoint folder; raises CheckpointError."""
    path = find_checkpoint(path)
    with _damage_named(path):
        with _reader() as checkpointer:
            values = checkpointer.restore(path, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        if values.get("format") != FORMAT:
            raise CheckpointError(f"{path} is not a {FORMAT} checkpoint")
        return Meta.from_dict(values)


def read_infos(path: str | Path) -> dict[str, ArrayInfo]:
    """Shapes and dtypes of a checkpoint's parameters, from its metadata; raises CheckpointError."""
    path = find_checkpoint(path)
    with _damage_named(path), _reader() as checkpointer:
        item = checkpointer.metadata(path).item_metadata["params"]
        if item is None:
            raise CheckpointError(f"{path} is damaged: it holds no parameters")
        return {n: ArrayInfo(tuple(m.shape), np.dtype(m.dtype)) for n, m in item.tree.items()}


def load_params(path: str | Path) -> StreamedParams:
    """The parameters of a checkpoint folder: NumPy arrays in the dtypes they were saved with, read when asked for.

    Raises CheckpointError, as does reading them from a damaged folder.
    """
    path = find_checkpoint(path)
    return StreamedParams(read_infos(path), functools.partial(_read_piece, path / "params"))


def misfits(saved: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """One line per parameter that is missing, unexpected or wrongly shaped; both map names to anything with a shape."""
    problems = [f"missing {n}" for n in expected if n not in saved]
    problems += [f"unexpected {n}" for n in saved if n not in expected]
    shapes = {n: (tuple(saved[n].shape), tuple(s.shape)) for n, s in expected.items() if n in saved}
    return problems + [f"{n} has shape {has}, expected {wants}" for n, (has, wants) in shapes.items() if has != wants]


def _read_piece(folder: Path, piece: Piece) -> np.ndarray:
    """One layer, or one whole parameter, from the `params` item: Orbax itself reads whole parameters only."""
    name, layer = piece
    if (folder / "manifest.ocdbt").is_file():
        place = {"driver": "ocdbt", "base": f"file://{folder}/", "path": f"{name}/"}
    else:
        place = {"driver": "file", "path": f"{folder / name}/"}
    with _damage_named(folder.parent):
        # Without the last setting a lost file would read as zeros.
        spec = {"driver": "zarr", "kvstore": place, "fill_missing_data_reads": False}
        array = ts.open(spec, open=True, read=True).result()
        return (array if layer is None else array[layer]).read().result()


@contextmanager
def _failed_save_named(folder: Path) -> Iterator[None]:
    """Turns what a save in the background raises, later, into a CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # Orbax raises bare ones
        raise CheckpointError(
            f"a checkpoint under {folder} could not be written, the ones before it are kept: {_reason(error)}"
        ) from error


class _KeepStep(preservation_policy.PreservationPolicy):
    """Keeps one step, which may change."""

    step: int | None = None

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: preservation_policy.PreservationContext
    ) -> Sequence[bool]:
        return [checkpoint.step == self.step for checkpoint in checkpoints]


class TrainingCheckpoints:
    """The steps under <workdir>/checkpoints: asynchronous saves, the last ones and the best one kept, exact resume."""

    def __init__(self, workdir: str | Path, keep: int):
        """keep: how many of the newest steps stay, besides the best one."""
        self.folder = Path(workdir).absolute() / STEPS
        self._best = _KeepStep()
        self.manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.AnyPreservationPolicy(
                    [preservation_policy.LatestN(n=keep), self._best]
                ),
                enable_async_checkpointing=True,
                cleanup_tmp_directories=True,
            ),
        )

    def latest_step(self) -> int | None:
        return self.manager.latest_step()

    def save(
        self, step: int, params: Mapping[str, jax.Array], opt_state: Any, meta: Meta, best_step: int | None = None
    ) -> None:
        """Saves one step in the background; the data iterator's position is part of `meta.run`.

        best_step: the step to keep besides the last ones. Raises CheckpointError if this or the save before failed.
        """
        self._best.step = best_step
        with _failed_save_named(self.folder):
            self.manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(dict(params)),
                    opt_state=ocp.args.StandardSave(opt_state),
                    meta=ocp.args.JsonSave(meta.to_dict()),
                ),
            )

    def read_meta(self, step: int) -> Meta:
        with _damage_named(self.folder / str(step)):
            return Meta.from_dict(
                self.manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
            )

    def restore(self, step: int, params: Mapping[str, Any], opt_state: Any) -> tuple[dict[str, jax.Array], Any]:
        """Restores (params, opt_state) of a step into the given shapes and shardings."""
        with _damage_named(self.folder / str(step)):
            restored = self.manager.restore(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardRestore(dict(params)), opt_state=ocp.args.StandardRestore(opt_state)
                ),
            )
        return restored["params"], restored["opt_state"]

    def close(self) -> None:
        """Waits for the saves under way; raises CheckpointError if one failed."""
        try:
            with _failed_save_named(self.folder):
                self.manager.wait_until_finished()
        finally:
            self.manager.close()
