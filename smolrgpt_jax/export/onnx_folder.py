"""The exported folder whose programs are ONNX, for onnxruntime on any CPU.

    encode.onnx    a picture, perhaps with its depth -> their tokens
    refine.onnx    the tokens of both -> the fine maps that regions are pooled from
    decoder.onnx   tokens, features and a key-value cache -> logits of the next token, cache; prefill and step are one program
    encode.data, refine.data, decoder.data, their weights; tokenizer/, manifest.json, run.py and the files that it imports

run.py is `onnx_runner.py` beside this file.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from smolrgpt_jax.checkpoint.load import Checkpoint
from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.export import onnx_runner
from smolrgpt_jax.export.folder import HOW_TO_CALL, export_folder
from smolrgpt_jax.export.onnx_decoder import write_decoder
from smolrgpt_jax.export.onnx_encoder import write_encoder, write_refiners
from smolrgpt_jax.export.onnx_graph import INT4, INT8, LEAST_BLOCK, Graph
from smolrgpt_jax.export.programs import length_problems

QUANTS = {None: None, "int8": INT8, "int4": INT4}
HEAD = 16  # numbers, of a head of the decoder: what onnxruntime's attention takes is a multiple


@dataclass(frozen=True)
class OnnxSettings:
    """What the programs are made for."""

    prompt_tokens: int = 512  # of the longest prompt, with its image tokens
    new_tokens: int = 120  # of the longest answer
    # How matrices are stored, None: in float32; int4: the decoder's layers, all else in int8.
    quant: Literal["int8", "int4"] | None = None

    def check(self, config: SmolRGPTConfig, tokenizer: ChatTokenizer) -> None:
        """Raises ValueError for settings that make no sense, or that this model and its tokenizer cannot have."""
        decoder, block = config.decoder, LEAST_BLOCK if self.quant else 1
        problems = [
            (self.quant not in QUANTS, f"quant is {self.quant!r}, must be int8 or int4"),
            (
                decoder.head_dim % HEAD,
                f"onnxruntime takes heads of a multiple of {HEAD} numbers, not of {decoder.head_dim}",
            ),
            (decoder.width % block, f"{self.quant} takes widths of a multiple of {block}, not of {decoder.width}"),
            *length_problems(self.prompt_tokens, self.new_tokens, config, tokenizer),
        ]
        for applies, problem in problems:
            if applies:
                raise ValueError(problem)


def write_onnx_export(
    model: Checkpoint,
    out: str | Path,
    settings: OnnxSettings = OnnxSettings(),
    on_program: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """Writes the folder that the module's docstring names, whole or not at all; returns its manifest.

    `on_program` is told each program's name before its turn. Raises ValueError as `OnnxSettings.check`, if the model has no tokenizer,
    or if `out` exists or cannot be written; ImportError without the package onnx.
    """
    config, quant = model.config, QUANTS.get(settings.quant)
    positions = settings.prompt_tokens + settings.new_tokens
    about = {"format": onnx_runner.FORMAT, **asdict(settings)}
    programs: dict[str, Callable[[Graph], dict[str, Any]]] = {
        # In four bits they are no faster than in eight.
        "encode": lambda graph: write_encoder(graph, config, model.params, quant and INT8),
        "refine": lambda graph: write_refiners(graph, config, model.params, quant and INT8),
        "decoder": lambda g: write_decoder(g, config.decoder, model.params, positions, quant, features=True),
    }
    with export_folder(model, out, onnx_runner, about) as (folder, tokenizer, manifest):
        settings.check(config, tokenizer)
        manifest |= {"calls": HOW_TO_CALL["calls"]["onnx"], "programs": {}}
        for name, write in programs.items():
            on_program(name)
            with Graph(folder / f"{name}.onnx") as graph:
                manifest["programs"][name] = write(graph)
    return manifest
