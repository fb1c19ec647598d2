"""Orbax, behind one file.

A checkpoint folder holds two items: `params` (the flat parameter dict) and `meta` (JSON: configuration, tokenizer
files, the PyTorch layout it was imported with, and for a training step its stage, settings and the position in the
data). A training checkpoint adds `opt_state`, and lies under <workdir>/checkpoints/<step>.
"""

import functools
import logging
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from etils import epath
from jax import ShapeDtypeStruct
from orbax.checkpoint.checkpoint_managers import preservation_policy

from smolrgpt_jax.checkpoint.mapping import Piece, StreamedParams, is_stacked, read_ahead, streamed
from smolrgpt_jax.checkpoint.safetensors_folder import TorchLayout
from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.errors import CheckpointError
from smolrgpt_jax.files import as_path, new_folder

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
            "torch_layout": self.layout and asdict(self.layout),
            "run": self.run,
        }


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint folder meant by `path`: itself, the newest step of a training work directory, or its best step where the
    path is WORKDIR/best.

    Raises CheckpointError if there is none.
    """
    path = as_path(path).absolute()
    if path.name == BEST and not path.exists() and (path.parent / STEPS).is_dir():
        newest = find_checkpoint(path.parent)
        step = ((read_meta(newest).run or {}).get("selection") or {}).get("best_step")
        if step is None:
            raise CheckpointError(f"{path.parent} was not validated yet, so no checkpoint is the best")
        best = newest.with_name(str(step))
        if not (best / "meta").is_dir():
            raise CheckpointError(f"{path.parent} has lost its best checkpoint, step {step}")
        return best
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


class _Folder(type(epath.Path("/"))):  # type: ignore[misc]
    """A folder as Orbax is given it, whose own class takes "[1]" for a pattern and "/gs" for a cloud."""

    _uri_scheme = None

    def glob(self, pattern: str) -> Iterator[Self]:
        return map(type(self), Path(self).glob(pattern))


class _Leaf(ShapeDtypeStruct):
    """A parameter on its way to the disk: known by shape and dtype, read piece by piece when its turn comes."""

    def __init__(self, params: StreamedParams, name: str):
        super().__init__(params.infos[name].shape, params.infos[name].dtype)
        self.params, self.name = params, name


class _LeafHandler(ocp.type_handlers.NumpyHandler):
    """Writes leaves one after the other and piece by piece; the files are those that NumPy arrays give."""

    async def serialize(
        self,
        values: Sequence[_Leaf],
        infos: Sequence[ocp.type_handlers.ParamInfo],
        args: Sequence[ocp.SaveArgs] | None = None,
    ) -> Sequence[Any]:
        for leaf, info in zip(values, infos, strict=True):
            await info.await_path_creation()
            # Plain chunks without compression: layers go straight to the disk, and trained float32 weights would shrink by a tenth
            # at several times the cost of writing them. One chunk per layer, so that layers can be written and read alone.
            chunk = (1, *leaf.shape[1:]) if is_stacked(leaf.name) else leaf.shape
            array = await ts.open(
                {**_zarr("file", f"{info.path}/"), "metadata": {"compressor": None}},
                create=True,
                dtype=ts.dtype(leaf.dtype),
                shape=leaf.shape,
                chunk_layout=ts.ChunkLayout(chunk_shape=chunk),
                context=info.ts_context,
            )
            under_way: deque[Any] = deque()
            for (_, layer), piece in read_ahead(leaf.params, leaf.params.pieces(leaf.name)):
                target = array if layer is None else array[layer]
                under_way.append(target.write(piece, can_reference_source_data_indefinitely=True))
                if len(under_way) > WRITES_UNDER_WAY:
                    await under_way.popleft()
            for write in under_way:
                await write
        return []


def _zarr(driver: str, path: str, **store: Any) -> dict[str, Any]:
    """TensorStore's name of an array that Orbax wrote."""
    return {"driver": "zarr", "kvstore": {"driver": driver, "path": path, **store}}


def save(path: str | Path, params: Mapping[str, Any], meta: Meta) -> None:
    """Writes a checkpoint folder, whole or not at all, from one process.

    params: read piece by piece where they are streamed. Raises CheckpointError if the folder exists or cannot be written, and
    what reading `params` raises.
    """
    params = streamed(params)
    handler = ocp.PyTreeCheckpointHandler(
        use_ocdbt=False, type_handler_registry=ocp.type_handlers.create_type_handler_registry((_Leaf, _LeafHandler()))
    )
    with new_folder(path) as aside, _named(f"{path} could not be written, nothing was left behind"):
        with ocp.Checkpointer(handler) as checkpointer:
            leaves = {name: _Leaf(params, name) for name in params}
            checkpointer.save(_Folder(aside, "params"), args=ocp.args.PyTreeSave(leaves))
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
            checkpointer.save(_Folder(aside, "meta"), args=ocp.args.JsonSave(meta.to_dict()))


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Turns what Orbax and TensorStore raise, bare Exceptions among it, into a CheckpointError that begins with `what`."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        # TensorStore wraps the system's own words in its chain of calls.
        system = re.search(r"([^:]*) \[os_error_code", str(cause))
        reason = (
            system[1].strip()
            if system
            else getattr(cause, "strerror", None) or re.split(r"\n| \[tensorstore_spec", str(cause))[0]
        )
        raise CheckpointError(f"{what}: {reason}") from error


def _damage_named(path: Path) -> AbstractContextManager[None]:
    return _named(f"{path} is damaged or no {FORMAT} checkpoint")


def read_meta(path: str | Path) -> Meta:
    """The `meta` item of the checkpoint that `find_checkpoint` finds; raises CheckpointError."""
    path = find_checkpoint(path)
    with _damage_named(path), ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
        values = checkpointer.restore(_Folder(path, "meta"))
        if values.get("format") != FORMAT:
            raise CheckpointError(f"{path} is not a {FORMAT} checkpoint")
        config, layout = SmolRGPTConfig.from_dict(values["config"]), values.get("torch_layout")
        tokenizer, run = values.get("tokenizer"), values.get("run")
        sections = [
            tokenizer or {},
            run or {},
            *((run or {}).get(part) or {} for part in ("run", "selection", "metrics")),
        ]
        if not all(isinstance(s, dict) for s in sections) or not all(isinstance(t, str) for t in sections[0].values()):
            raise CheckpointError(f"{path} is damaged: what it says of its tokenizer or run is no JSON object of names")
        return Meta(config, tokenizer, layout and TorchLayout(**layout), run)


def load_params(path: str | Path) -> StreamedParams:
    """The parameters of a checkpoint folder: NumPy arrays in the dtypes they were saved with, read when asked for.

    Raises CheckpointError, as does reading them from a damaged folder.
    """
    path = find_checkpoint(path)
    with _damage_named(path):
        tree = ocp.PyTreeCheckpointHandler().metadata(_Folder(path, "params")).tree
        infos = {n: ShapeDtypeStruct(tuple(m.shape), np.dtype(m.dtype)) for n, m in tree.items()}
    return StreamedParams(infos, functools.partial(_read_piece, path / "params"))


def _read_piece(folder: Path, piece: Piece) -> np.ndarray:
    """One layer, or one whole parameter, from the `params` item: Orbax itself reads whole parameters only."""
    name, layer = piece
    if (folder / "manifest.ocdbt").is_file():
        # Not as the URL that TensorStore also takes: "#" and "%20" are characters of a name.
        place = _zarr("ocdbt", f"{name}/", base={"driver": "file", "path": f"{folder}/"})
    else:
        place = _zarr("file", f"{folder / name}/")
    with _damage_named(folder.parent):
        # Without the last setting a lost file would read as zeros.
        array = ts.open({**place, "fill_missing_data_reads": False}, open=True, read=True).result()
        return (array if layer is None else array[layer]).read().result()


class _Kept(preservation_policy.PreservationPolicy):
    """Keeps the newest steps and the best one, which may change."""

    def __init__(self, newest: int):
        self.newest, self.best = newest, None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        return [step in (*steps[-self.newest :], self.best) for step in steps]


class TrainingCheckpoints:
    """The steps under <workdir>/checkpoints: asynchronous saves, the last ones and the best one kept, exact resume."""

    def __init__(self, workdir: str | Path, keep: int):
        """keep: how many of the newest steps stay, besides the best one."""
        self.folder = as_path(workdir).absolute() / STEPS
        self._kept = _Kept(keep)
        self.manager = ocp.CheckpointManager(
            _Folder(self.folder),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._kept, enable_async_checkpointing=True, cleanup_tmp_directories=True
            ),
        )

    def _failed_save_named(self) -> AbstractContextManager[None]:
        return _named(f"a checkpoint under {self.folder} could not be written, the ones before it are kept")

    def latest_step(self) -> int | None:
        return self.manager.latest_step()

    def save(
        self, step: int, params: Mapping[str, jax.Array], opt_state: Any, meta: Meta, best_step: int | None = None
    ) -> None:
        """Saves one step in the background; the data iterator's position is part of `meta.run`.

        best_step: the step to keep besides the last ones. Raises CheckpointError if this or the save before failed.
        """
        self._kept.best = best_step
        with self._failed_save_named():
            self.manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(dict(params)),
                    opt_state=ocp.args.StandardSave(opt_state),
                    meta=ocp.args.JsonSave(meta.to_dict()),
                ),
            )

    def restore(self, step: int, params: Mapping[str, Any], opt_state: Any) -> tuple[dict[str, jax.Array], Any]:
        """Restores (params, opt_state) of a step into the given shapes and shardings."""
        with _damage_named(self.folder / str(step)):
            items = {"params": dict(params), "opt_state": opt_state}
            wanted = {name: ocp.args.StandardRestore(item) for name, item in items.items()}
            restored = self.manager.restore(step, args=ocp.args.Composite(**wanted))
        return restored["params"], restored["opt_state"]

    def close(self) -> None:
        """Waits for the saves under way; raises CheckpointError if one failed."""
        try:
            with self._failed_save_named():
                self.manager.wait_until_finished()
        finally:
            self.manager.close()
