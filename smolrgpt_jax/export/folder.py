"""The exported folder: programs, parameters, tokenizer, manifest and the program that runs it all.

    encode.jax_export      pictures, depths and region masks -> features   (where there are regions)
    encode_rgb.jax_export  pictures -> features, for prompts about the picture alone
    prefill.jax_export     prompt and features -> logits of the next token, key-value cache
    decode.jax_export      one token and the cache -> logits of the next token, cache
    parameters.safetensors, tokenizer/, manifest.json, run.py and the files that it imports

Each program is one serialised `jax.export.Exported` for all platforms, called as program(parameters, inputs) with two dicts of
arrays; the parameters lie beside the programs, not in them. run.py is `runner.py` beside this file. Programs of ONNX: `onnx_folder.py`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.export
import numpy as np

from smolrgpt_jax import errors, files
from smolrgpt_jax.checkpoint.load import Checkpoint
from smolrgpt_jax.checkpoint.safetensors_folder import DTYPES, write_file
from smolrgpt_jax.data import images, inputs, masks, records, regions, workings
from smolrgpt_jax.data.chat import END, IMAGE_TOKEN, MASK_DEPTH_TOKEN, MASK_RGB_TOKEN, START, ChatTokenizer
from smolrgpt_jax.export import exported as shared
from smolrgpt_jax.export import runner
from smolrgpt_jax.export.exported import MANIFEST, TOKENIZER, digest, sha256
from smolrgpt_jax.export.programs import ExportSettings, export_programs, stored_dtype
from smolrgpt_jax.files import new_folder
from smolrgpt_jax.models.smolrgpt import abstract_params

# What a runner imports lies beside it.
BESIDE = (shared, inputs, masks, images, records, regions, workings, errors, files)
# What the manifest says of every export.
HOW_TO_CALL = files.read_json(Path(__file__).with_name("manifest.json"), dict)


def write_export(
    model: Checkpoint,
    out: str | Path,
    settings: ExportSettings = ExportSettings(),
    on_program: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """Writes the folder that the module's docstring names, whole or not at all; returns its manifest.

    Raises ValueError as `export_programs`, if the model has no tokenizer, or if `out` exists or cannot be written.
    """
    about = {"format": runner.FORMAT, "jax": jax.__version__, **asdict(settings)}
    with export_folder(model, out, runner, about) as (folder, tokenizer, manifest):
        exported = export_programs(model.config, settings, tokenizer, on_program)
        for name, program in exported.items():
            (folder / f"{name}.{runner.SUFFIX}").write_bytes(program.serialize())
        _write_parameters(folder / runner.PARAMETERS, model, settings.dtype)
        programs = {name: _describe(name, program) for name, program in exported.items()}
        manifest |= {"calls": HOW_TO_CALL["calls"]["jax"], "programs": programs}
    return manifest


@contextmanager
def export_folder(
    model: Checkpoint, out: str | Path, runs: ModuleType, about: Mapping[str, Any]
) -> Iterator[tuple[Path, ChatTokenizer, dict[str, Any]]]:
    """The folder, to write programs into, the tokenizer, and the manifest, which is written with checksums at the end.

    runs: what becomes run.py; about: the manifest's beginning. Raises as `write_export`.
    """
    if model.tokenizer is None:
        raise ValueError("the checkpoint brings no tokenizer, and an export needs one")
    with new_folder(out) as folder:
        manifest = {**about, **_chat(model, model.tokenizer)}
        yield folder, model.tokenizer, manifest
        model.tokenizer.save(folder / TOKENIZER)
        for name, source in {"run": runs, **{module.__name__.split(".")[-1]: module for module in BESIDE}}.items():
            text = Path(str(source.__file__)).read_text(encoding="utf-8")
            own = re.sub(r"from smolrgpt_jax\.((data|export)\.)?", "from ", text)
            (folder / f"{name}.py").write_text(own, encoding="utf-8")
        held = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        sums = {file.relative_to(folder).as_posix(): sha256(file) for file in held}
        manifest["sha256"] = sums | {MANIFEST: digest(manifest)}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _write_parameters(path: Path, model: Checkpoint, dtype: str) -> None:
    shapes = abstract_params(model.config)
    stored = {name: stored_dtype(name, dtype, shapes) for name in sorted(shapes)}
    names = {dtype: name for name, dtype in DTYPES.items()}
    tensors = [(name, names[kind], shapes[name].shape) for name, kind in stored.items()]
    with write_file(path, tensors, {"format": runner.FORMAT}) as write:
        for name, kind in stored.items():
            write(name, np.asarray(model.params[name]).astype(kind))


def _chat(model: Checkpoint, tokenizer: ChatTokenizer) -> dict[str, Any]:
    """What the manifest says of pictures and prompts."""
    names = ("image", "mask_rgb", "mask_depth", "eos", "pad")
    region = {"region": MASK_RGB_TOKEN + MASK_DEPTH_TOKEN, "region_names": tokenizer.format.region_names}
    turns = {"end": f"{END}\n", "assistant": f"{START}assistant\n"}
    return {
        **asdict(inputs.InputSizes.of(model.config)),
        "token_ids": {name: getattr(tokenizer, f"{name}_id") for name in names},
        "chat": {"user": f"{START}user\n", "image": IMAGE_TOKEN, **region, **turns},
        "preprocessing": HOW_TO_CALL["preprocessing"],
    }


def _describe(name: str, program: jax.export.Exported) -> dict[str, Any]:
    def describe(arrays: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: {"shape": [n if isinstance(n, int) else str(n) for n in value.shape], "dtype": str(value.dtype)}
            for key, value in arrays.items()
        }

    (params, given), _ = jax.tree.unflatten(program.in_tree, program.in_avals)
    return {
        "file": f"{name}.{runner.SUFFIX}",
        "platforms": list(program.platforms),
        "calling_convention_version": program.calling_convention_version,
        "parameters": sorted({key.split("/")[0] for key in params}),
        "inputs": describe(given),
        "outputs": describe(jax.tree.unflatten(program.out_tree, program.out_avals)),
    }
