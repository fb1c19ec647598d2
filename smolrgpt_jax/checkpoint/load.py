"""Checkpoints of any kind: read as a configuration, parameters and a tokenizer; or copied with parts of the model drawn anew."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import jax
import numpy as np
from jax.sharding import Mesh, Sharding

from smolrgpt_jax import sharding
from smolrgpt_jax.checkpoint import orbax
from smolrgpt_jax.checkpoint.safetensors_folder import CONFIG_FILE, TorchLayout, check_fit
from smolrgpt_jax.checkpoint.torch import read_folder
from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.errors import CheckpointError, DataError
from smolrgpt_jax.files import as_path
from smolrgpt_jax.models.smolrgpt import abstract_params, init_params

if TYPE_CHECKING:
    from smolrgpt_jax.data.chat import ChatTokenizer  # imports transformers, which takes seconds

BETWEEN = ("rgb_connector", "depth_connector", "rgb_refiner", "depth_refiner")  # encoder and decoder


@dataclass(frozen=True)
class Checkpoint:
    """A model and what it was stored with: what everything takes that runs, trains or converts one."""

    config: SmolRGPTConfig
    params: Mapping[str, Any]  # as read, NumPy arrays in the dtypes they are stored in, fetched anew at every access
    tokenizer: "ChatTokenizer | None" = None
    source: Path | None = None  # folder that the parameters were read from
    layout: TorchLayout | None = None  # of the PyTorch folder that the model was imported from
    run: Mapping[str, Any] | None = None  # step, stage, metrics and settings of the training that wrote the checkpoint

    @property
    def answer_tokens(self) -> int:
        """Tokens of the longest answer that the model was trained for."""
        from smolrgpt_jax.data.chat import ANSWER_TOKENS

        return ANSWER_TOKENS if self.tokenizer is None else self.tokenizer.format.answer_tokens

    @property
    def stage(self) -> str | None:
        """The stage that the training was in; None for an imported model."""
        return (self.run or {}).get("stage")

    def on_devices(self, mesh: Mesh | None = None) -> Self:
        """The same with float32 parameters on this process's first device, or on `mesh` with the shardings of training.

        Each is read straight to where it stays. Raises CheckpointError for damaged ones.
        """
        shapes = abstract_params(self.config)
        places: dict[str, Sharding] = dict.fromkeys(shapes, jax.sharding.SingleDeviceSharding(jax.local_devices()[0]))
        places |= {} if mesh is None else sharding.param_shardings(shapes, mesh)
        params = {n: jax.device_put(np.asarray(self.params[n], np.float32), place) for n, place in places.items()}
        return replace(self, params=params)


def read_checkpoint(path: str | Path, *, allow_nan: bool = False) -> Checkpoint:
    """Opens a PyTorch folder, a converted checkpoint, a training's step, its work directory (the newest step) or WORKDIR/best.

    Only headers are read: numbers are when a parameter is accessed, which raises CheckpointError for damaged files and, in a
    PyTorch folder, for NaN or infinite weights unless `allow_nan`. Raises CheckpointError for a folder of none of these kinds and
    for one whose tensors do not fit its configuration, all of which are listed; DataError for a damaged tokenizer.
    """
    path = as_path(path)
    if (path / CONFIG_FILE).is_file():
        config, params, layout = read_folder(path, allow_nan=allow_nan)
        tokenizer = None
        if (path / "tokenizer.json").is_file():
            from smolrgpt_jax.data.chat import ChatTokenizer

            tokenizer = ChatTokenizer.load(path)
        return Checkpoint(config, params, tokenizer, path, layout)
    path = orbax.find_checkpoint(path)
    meta, params = orbax.read_meta(path), orbax.load_params(path)
    expected = {name: param.shape for name, param in abstract_params(meta.config).items()}
    check_fit(path, params.infos, expected, "configuration")
    tokenizer = None if meta.tokenizer is None else tokenizer_from_files(meta.tokenizer, path)
    # The last training says how long answers are.
    tokens = ((meta.run or {}).get("run") or {}).get("validation_answer_tokens")
    if tokenizer is not None and tokens:
        tokenizer = tokenizer.with_format(answer_tokens=tokens)
    return Checkpoint(meta.config, params, tokenizer, path, meta.layout, meta.run)


def tokenizer_files(tokenizer: "ChatTokenizer") -> dict[str, str]:
    """{file name: text} of the folder that `ChatTokenizer.save` writes."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "tokenizer"
        tokenizer.save(folder)
        return {file.name: file.read_text(encoding="utf-8") for file in sorted(folder.iterdir())}


def tokenizer_from_files(files: Mapping[str, str], holder: object = "memory") -> "ChatTokenizer":
    """The inverse of `tokenizer_files`; raises DataError, which names their holder, for files that hold no tokenizer."""
    from smolrgpt_jax.data.chat import ChatTokenizer

    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / Path(name).name).write_text(text, encoding="utf-8")
        try:
            return ChatTokenizer.load(folder)
        except DataError as error:  # which names a copy of them
            raise DataError(f"{holder} holds a damaged tokenizer: {error}") from error


def draw(config: SmolRGPTConfig, parts: Sequence[str], seed: int) -> dict[str, np.ndarray]:
    """Random parameters whose names begin with a part's, float32; raises CheckpointError for a part that the model does not have."""
    names = [name for name in abstract_params(config) if any(f"{name}/".startswith(f"{part}/") for part in parts)]
    missing = [part for part in parts if not any(f"{name}/".startswith(f"{part}/") for name in names)]
    if missing:
        raise CheckpointError(f"the model has no part {', '.join(sorted(missing))}")
    # Compiled as a whole, so that nothing else is drawn.
    drawn = jax.jit(lambda key: {n: v for n, v in init_params(config, key).items() if n in names})
    return {name: np.asarray(value) for name, value in drawn(jax.random.key(seed)).items()}


def write_start(source: str | Path, destination: str | Path, parts: Sequence[str] = BETWEEN, seed: int = 0) -> None:
    """Writes the checkpoint `source`, of any kind, as the new folder `destination`, with `parts` drawn from the seed.

    Raises CheckpointError if `destination` exists, `source` cannot be read or the model has no such part.
    """
    read = read_checkpoint(source)
    params = {**read.params, **draw(read.config, parts, seed)}
    tokenizer = None if read.tokenizer is None else tokenizer_files(read.tokenizer)
    run = None if read.run is None else dict(read.run)
    orbax.save(destination, params, orbax.Meta(read.config, tokenizer, read.layout, run))
