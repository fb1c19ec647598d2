"""Orbax, behind one file.

A checkpoint folder holds two items: `params` (the flat parameter dict) and `meta` (JSON: configuration, tokenizer
files, the PyTorch layout it was imported with, and for a training step its stage, settings and the position in the
data). A training checkpoint adds `opt_state`, and lies under <workdir>/checkpoints/<step>.
"""

import functools
import logging
import re
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from etils import epath
from jax import ShapeDtypeStruct
from orbax.checkpoint.checkpoint_managers import preservation_policy

from smolrgpt_jax.checkpoint.fingerprint import fingerprint
from smolrgpt_jax.checkpoint.mapping import Piece, StreamedParams, is_stacked, read_ahead, streamed
from smolrgpt_jax.checkpoint.safetensors_folder import TorchLayout
from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.distributed import gather
from smolrgpt_jax.errors import CheckpointError, DataError
from smolrgpt_jax.files import as_path, new_folder, read_json, sync, write_json

# Orbax's advice to its own developers, once per parameter of every checkpoint that is opened, tracebacks of errors that it raises
# again, and what a lost machine left of a file that nothing here reads.
_NOISE: tuple[str, ...] = ("ParamInfo(name=", "No jax.Array in TypeHandler", "Skipping merge of OCDBT")
_NOISE += ("_SignalingThread.run() raised", "Failed to json parse Metadata", "exception was never retrieved")
for _logger in ("absl", "asyncio"):
    logging.getLogger(_logger).addFilter(lambda record: not any(noise in str(record.msg) for noise in _NOISE))

FORMAT = "smolrgpt_jax"
STEPS = "checkpoints"
BEST = "best"
META_FILE = "meta/metadata"  # of Orbax's JSON handler
PARTIAL, WRITES_UNDER_WAY = "*.orbax-checkpoint-tmp*", 2  # folders that Orbax writes into


@dataclass(frozen=True)
class Meta:
    """What a checkpoint says of itself."""

    config: SmolRGPTConfig
    tokenizer: dict[str, str] | None = None  # {file name: text} of the tokenizer's folder
    layout: TorchLayout | None = None  # as imported from PyTorch, if it was
    run: Any = None  # in a checkpoint of a training a dict of step, stage, metrics and the run's configuration

    def to_dict(self) -> dict[str, Any]:
        model = {"format": FORMAT, "config": self.config.to_dict(), "tokenizer": self.tokenizer}
        return {**model, "torch_layout": self.layout and asdict(self.layout), "run": self.run}


def _stored(path: str | Path) -> Path:
    """A checkpoint's absolute path; raises CheckpointError for one that TensorStore takes for another."""
    path = as_path(path).absolute()
    if odd := re.search(r"[\\\ud800-\udfff]|/(gs|s3):(?=/|$)", str(path)):
        what = "cannot hold a checkpoint, its arrays would go elsewhere"
        raise CheckpointError(f"{path} {what}: rename what has {odd[0]!r}")
    return path


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint folder meant by `path`: itself, the newest step of a training work directory, or its best step where the
    path is WORKDIR/best.

    Raises CheckpointError if there is none.
    """
    path = _stored(path)
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
        steps = [step for step in _steps(root) if (step / "meta").is_dir()]
        if steps:
            return steps[-1]
    neither = f"neither a checkpoint folder nor a work directory with {STEPS}/<step>"
    raise CheckpointError(f"{path} holds no checkpoint: {neither}")


def _steps(root: Path) -> list[Path]:
    """The folders of steps, the newest last."""
    named = {int(path.name): path for path in root.glob("*") if re.fullmatch("[0-9]+", path.name) and path.is_dir()}
    return [named[step] for step in sorted(named)]


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
    path, params = _stored(path), streamed(params)
    registry = ocp.type_handlers.create_type_handler_registry((_Leaf, _LeafHandler()))
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False, type_handler_registry=registry)
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
        reason = getattr(cause, "strerror", None) or re.split(r"\n| \[tensorstore_spec", str(cause))[0]
        raise CheckpointError(f"{what}: {system[1].strip() if system else reason}") from error


def _damage_named(path: Path) -> AbstractContextManager[None]:
    return _named(f"{path} is damaged or no {FORMAT} checkpoint")


def read_meta(path: str | Path) -> Meta:
    """The `meta` item of the checkpoint that `find_checkpoint` finds; raises CheckpointError."""
    path = find_checkpoint(path)
    with _damage_named(path):
        # Not by Orbax, which reads on all processes together: one that fails would leave the others waiting.
        values = read_json(path / META_FILE, dict, DataError)
        if values.get("format") != FORMAT:
            raise CheckpointError(f"{path} is not a {FORMAT} checkpoint")
        config, layout = SmolRGPTConfig.from_dict(values["config"]), values.get("torch_layout")
        tokenizer, run = values.get("tokenizer"), values.get("run")
        parts = ((run or {}).get(part) or {} for part in ("run", "selection", "metrics", "facts", "data"))
        sections = [tokenizer or {}, run or {}, *parts]
        if not all(isinstance(s, dict) for s in sections) or not all(isinstance(t, str) for t in sections[0].values()):
            raise CheckpointError(f"{path} is damaged: what it says of its tokenizer or run is no JSON object of names")
        return Meta(config, tokenizer, layout and TorchLayout(**layout), run)


def _check_run(step: Path, meta: Meta) -> None:
    """Raises CheckpointError where a step of a training does not say what going on takes."""
    run = meta.run or {}
    numbers = [run.get("step"), (run.get("data") or {}).get("next_index"), run.get("unvalidated", False)]
    scores = [*(run.get("metrics") or {}).values(), *(run.get("selection") or {}).values()]
    counted = all(isinstance(n, int) and n >= 0 for n in numbers)
    scored = all(isinstance(s, float | int | None) for s in scores)
    if not (counted and scored and run.get("run") and meta.tokenizer and run["step"] == int(step.name)):
        raise CheckpointError(f"{step} is damaged: what it says of its run is not what step {step.name} said")


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
        self.newest = newest
        self.best: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        return [step in (*steps[-self.newest :], self.best) for step in steps]


class NotFinite(ValueError):
    """A state that holds NaN or infinity; the message names arrays."""


class TrainingCheckpoints:
    """The steps under <workdir>/checkpoints: asynchronous saves, the last ones and the best one kept, exact resume.

    Nothing is saved that is not finite, and a step has its name only once it is on the disk. It knows the fingerprint of its
    arrays, which they must have when they are read again: not every damage makes a file unreadable.
    """

    def __init__(self, workdir: str | Path, keep: int, place: jax.sharding.Sharding | None = None):
        """keep: how many of the newest steps stay, besides the best one; place: see `fingerprint`."""
        self.folder = _stored(workdir) / STEPS
        self._kept, self._place = _Kept(keep), place

    @functools.cached_property
    def manager(self) -> ocp.CheckpointManager:
        """Made by the first save, so that a run which ends before leaves no folder."""
        at_end = ocp.AsyncOptions(post_finalization_callback=self._sync)
        how: dict[str, Any] = {"enable_async_checkpointing": True, "cleanup_tmp_directories": True}
        options = ocp.CheckpointManagerOptions(preservation_policy=self._kept, async_options=at_end, **how)
        return ocp.CheckpointManager(_Folder(self.folder), options=options)

    def _sync(self) -> None:
        """Called by Orbax before it renames the folder that it wrote to."""
        for path in (*self.folder.glob(PARTIAL), *self.folder.glob(f"{PARTIAL}/**/*"), self.folder):
            sync(path)

    def _failed_save_named(self) -> AbstractContextManager[None]:
        return _named(f"a checkpoint under {self.folder} could not be written, the ones before it are kept")

    def fingerprint(self, params: Mapping[str, Any], opt_state: Any) -> str:
        """That of all arrays of a step; raises NotFinite."""
        leaves = jax.tree_util.tree_leaves_with_path(opt_state)
        named = {f"optimiser state {jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}
        bits, broken = fingerprint({**params, **named}, self._place)
        if broken:
            others = f" and {len(broken) - 3} others" if len(broken) > 3 else ""
            raise NotFinite(f"{', '.join(broken[:3])}{others} hold NaN or infinity")
        return bits

    def save(
        self, step: int, params: Mapping[str, jax.Array], opt_state: Any, meta: Meta, best_step: int | None = None
    ) -> None:
        """Saves one step in the background; the data iterator's position is part of `meta.run`.

        Of a step that is there already only `meta` is written anew. best_step: the step to keep besides the last ones. Raises
        NotFinite, and CheckpointError if this or the save before failed.
        """
        self._kept.best = best_step
        meta = replace(meta, run={**(meta.run or {}), "fingerprint": self.fingerprint(params, opt_state)})
        with self._failed_save_named():
            if self.manager.latest_step() == step:
                self.manager.wait_until_finished()
                if jax.process_index() == 0:
                    write_json(self.folder / str(step) / META_FILE, meta.to_dict())
                return
            arrays = {"params": ocp.args.StandardSave(dict(params)), "opt_state": ocp.args.StandardSave(opt_state)}
            items = ocp.args.Composite(**arrays, meta=ocp.args.JsonSave(meta.to_dict()))
            self.manager.save(step, args=items)

    def newest(self, like: Any = ()) -> Any:
        """What the newest good step says of itself and, in the shapes and shardings of `like` if given, its (params, opt_state).

        The damaged ones after it stay under another name, which is printed. Of several processes all call this, and what one of
        them cannot read none takes. None where there is no step; raises CheckpointError where none is good, and all stay.
        """
        names = gather([path.name for path in _steps(self.folder)])[0]
        damaged: dict[str, str] = {}
        for name in reversed(names):
            folder, problem, state = self.folder / name, "", []
            try:
                meta = read_meta(folder)
                _check_run(folder, meta)
                with _damage_named(folder):
                    handler = ocp.StandardCheckpointHandler()
                    for item, part in zip(("params", "opt_state"), like):
                        state.append(handler.restore(_Folder(folder, item), args=ocp.args.StandardRestore(part)))
            except CheckpointError as error:
                problem = str(error)
            problem = max(gather(problem))
            # Not inside: the fingerprint is computed by all processes together.
            if like and not problem:
                problem = self._difference(folder, meta, state)
            if not problem:
                self._set_aside(damaged)
                return meta, state
            damaged[name] = problem
        if damaged:
            first = next(iter(damaged.values()))
            raise CheckpointError(f"no checkpoint under {self.folder} is good; move them away to begin anew: {first}")
        return None

    def _difference(self, folder: Path, meta: Meta, state: Sequence[Any]) -> str:
        """What is wrong with arrays that could be read, if anything."""
        try:
            bits = self.fingerprint(*state)
        except NotFinite as error:
            return f"{folder} is damaged: {error}"
        saved = (meta.run or {}).get("fingerprint", bits)  # older checkpoints do not know it
        return "" if saved == bits else f"{folder} is damaged: its arrays are not those that were saved"

    def _set_aside(self, damaged: Mapping[str, str]) -> None:
        for name, problem in damaged.items() if jax.process_index() == 0 else ():
            aside = tempfile.mkdtemp(prefix=f"{name}.damaged-", dir=self.folder)
            (self.folder / name).rename(aside)
            print(f"  {problem}; it is kept as {aside} and not used")
        gather(None)  # the other processes go on once they are away

    def close(self) -> None:
        """Waits for the saves under way; raises CheckpointError if one failed."""
        if "manager" not in vars(self):
            return
        try:
            with self._failed_save_named():
                self.manager.wait_until_finished()
                sync(self.folder)
        finally:
            self.manager.close()
