"""Orbax, behind one file.

A checkpoint folder holds two items: `params` (the flat parameter dict) and `meta` (JSON: configuration, tokenizer
files, the PyTorch layout it was imported with, and for a training step its stage, settings and the position in the
data). A training checkpoint adds `opt_state`, and lies under <workdir>/checkpoints/<step>.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.torch_format.folder import CheckpointError, TorchLayout

FORMAT = "smolrgpt_jax"
STEPS = "checkpoints"


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
    """The checkpoint folder meant by `path`: itself, or the newest step of a training work directory.

    Raises CheckpointError if there is none.
    """
    path = Path(path).absolute()
    if (path / "meta").is_dir():
        return path
    for root in (path / STEPS, path):
        steps = [p for p in root.glob("*") if p.name.isdigit() and (p / "meta").is_dir()]
        if steps:
            return max(steps, key=lambda p: int(p.name))
    raise CheckpointError(
        f"{path} holds no checkpoint: neither a checkpoint folder nor a work directory with {STEPS}/<step>"
    )


def save(path: str | Path, params: Mapping[str, Any], meta: Meta) -> None:
    """Writes a checkpoint folder, whole or not at all; raises CheckpointError if it exists or cannot be written."""
    path = Path(path).absolute()
    if path.exists():
        raise CheckpointError(f"{path} exists already; nothing was written")
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            checkpointer.save(
                path,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(dict(params)), meta=ocp.args.JsonSave(meta.to_dict())
                ),
            )
    except OSError as error:
        raise CheckpointError(f"{path} could not be written: {error}") from error


def _reader() -> ocp.Checkpointer:
    """Reads single items of a checkpoint folder, of a converted checkpoint as of a training step."""
    trees = {name: ocp.PyTreeCheckpointHandler() for name in ("params", "opt_state")}
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler(**trees, meta=ocp.JsonCheckpointHandler()))


def read_meta(path: str | Path) -> Meta:
    """The `meta` item of a checkpoint folder; raises CheckpointError."""
    path = find_checkpoint(path)
    with _reader() as checkpointer:
        values = checkpointer.restore(path, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
    if values.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a {FORMAT} checkpoint")
    return Meta.from_dict(values)


def load_params(path: str | Path, like: Mapping[str, jax.ShapeDtypeStruct] | None = None) -> dict[str, Any]:
    """The parameters of a checkpoint folder.

    like: shapes, dtypes and shardings to restore into, each tensor read straight into its sharding; without it NumPy arrays
    in the dtypes they were saved with. Raises CheckpointError listing names or shapes that do not fit.
    """
    path = find_checkpoint(path)
    with _reader() as checkpointer:
        saved = checkpointer.metadata(path).item_metadata["params"].tree
        if like is None:
            item = dict.fromkeys(saved, 0)
            arguments = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in saved}
        else:
            problems = [f"missing {n}" for n in like if n not in saved] + [
                f"unexpected {n}" for n in saved if n not in like
            ]
            shapes = {n: (tuple(saved[n].shape), tuple(s.shape)) for n, s in like.items() if n in saved}
            problems += [
                f"{n} has shape {has}, expected {wants}" for n, (has, wants) in shapes.items() if has != wants
            ]
            if problems:
                raise CheckpointError(f"{path} does not fit the configuration: {'; '.join(problems)}")
            item = dict(like)
            arguments = {
                n: ocp.ArrayRestoreArgs(sharding=s.sharding, global_shape=s.shape, dtype=s.dtype)
                for n, s in like.items()
            }
        restore = ocp.args.PyTreeRestore(item=item, restore_args=arguments)
        return checkpointer.restore(path, args=ocp.args.Composite(params=restore))["params"]


class TrainingCheckpoints:
    """The steps under <workdir>/checkpoints: asynchronous saves, the last ones and the best one kept, exact resume."""

    def __init__(self, workdir: str | Path, keep: int):
        self.folder = Path(workdir).absolute() / STEPS
        self.manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True),
        )

    def latest_step(self) -> int | None:
        return self.manager.latest_step()

    def save(self, step: int, params: Mapping[str, jax.Array], opt_state: Any, meta: Meta) -> None:
        """Saves one step in the background; the data iterator's position is part of `meta.run`."""
        self.manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(dict(params)),
                opt_state=ocp.args.StandardSave(opt_state),
                meta=ocp.args.JsonSave(meta.to_dict()),
            ),
        )

    def read_meta(self, step: int) -> Meta:
        return Meta.from_dict(
            self.manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        )

    def restore(
        self, step: int, params: Mapping[str, Any], opt_state: Any
    ) -> tuple[dict[str, jax.Array], Any]:
        """Restores (params, opt_state) of a step into the given shapes and shardings."""
        restored = self.manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(dict(params)), opt_state=ocp.args.StandardRestore(opt_state)
            ),
        )
        return restored["params"], restored["opt_state"]

    def close(self) -> None:
        """Waits for the saves under way."""
        self.manager.wait_until_finished()
        self.manager.close()
