"""Runs an exported SmolRGPT with jax, numpy, safetensors and flatbuffers alone; pictures and text need Pillow and tokenizers too.

    python run.py --image I.png --question "Describe the picture."
    python run.py --image I.png --depth D.png --boxes 10,20,200,220 300,40,420,200 \\
        --question "How far is the pallet <mask> from the pallet <mask>?"
    python run.py --image I.png --depth D.png --masks first.png second.png --question "..."    # or a JSON file of COCO's masks

This file lies in every exported folder beside the files that it imports, and needs no smolrgpt_jax there. From Python:

    from run import ExportedModel
    ids = ExportedModel("FOLDER").generate(input_ids, attention_mask, images, depths, masks)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from smolrgpt_jax.data.inputs import PICTURES, check_left_padded, model_inputs
from smolrgpt_jax.errors import told
from smolrgpt_jax.export.exported import ExportedFolder, answer, answer_questions

__all__ = ["ExportedModel", "answer"]

FORMAT = "smolrgpt_jax export 2"
PARAMETERS, SUFFIX = "parameters.safetensors", "jax_export"


@dataclass(frozen=True)
class Decoding:
    """Where the decoding of a batch stands."""

    logits: jax.Array  # float32[B, V], of the next token
    step: int  # tokens decoded so far
    attention_mask: jax.Array  # int32[B, S], of the prompts
    cache: dict[str, jax.Array]  # each layer's keys and values, used up by the next `decode`


class ExportedModel(ExportedFolder):
    """An exported folder, loaded to the default device."""

    def __init__(self, folder: str | Path):
        """Reads the folder; raises ValueError if it is damaged or was not exported for the default device's platform."""
        super().__init__(folder, FORMAT)
        platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
        if platform not in self.manifest["platforms"]:
            made = ", ".join(self.manifest["platforms"])
            raise ValueError(f"{self.folder} was exported for {made}, the default device is of platform {platform}")
        params = {name: jnp.asarray(value) for name, value in load_file(self.folder / PARAMETERS).items()}
        self._programs = {}
        for name, described in self.manifest["programs"].items():
            parts = described["parameters"]
            needed = {n: value for n, value in params.items() if n.split("/")[0] in parts}
            exported = jax.export.deserialize(bytearray((self.folder / described["file"]).read_bytes()))
            self._programs[name] = functools.partial(_call(exported), needed)

    def prefill(
        self,
        input_ids: np.ndarray,
        attention_mask: np.ndarray,
        images: np.ndarray,
        depths: np.ndarray | None = None,
        masks: Sequence[np.ndarray] | None = None,
    ) -> Decoding:
        """Reads left-padded prompts of up to the exported number of tokens; arguments and errors: see `inputs.model_inputs`."""
        batch = self.manifest["batch"] or len(input_ids)
        if len(input_ids) != batch:
            raise ValueError(f"{len(input_ids)} rows, the model was exported for {batch}")
        regions, longest = self.manifest["regions"], self.manifest["prompt_tokens"]
        inputs = model_inputs(self.sizes, input_ids, attention_mask, images, depths, masks, regions)
        check_left_padded(inputs["attention_mask"])
        self.check_prompts(inputs["attention_mask"])
        pictures = {name: inputs.pop(name) for name in PICTURES if name in inputs}
        fill = {"tokens": self.manifest["token_ids"]["pad"], "attention_mask": 0, "feature_index": -1}
        missing = max(0, longest - inputs["tokens"].shape[1])
        for name, value in fill.items():
            # Padded, or their padding cut, to the exported length.
            inputs[name] = np.pad(inputs[name], ((0, 0), (missing, 0)), constant_values=value)[:, -longest:]
        inputs["input_ids"] = inputs.pop("tokens")
        encoded = self._programs["encode" if "depths" in pictures else "encode_rgb"](pictures)
        out = self._programs["prefill"](inputs | encoded)
        return Decoding(out.pop("logits"), 0, jnp.asarray(inputs["attention_mask"]), out)

    def decode(self, state: Decoding, token: np.ndarray | jax.Array) -> Decoding:
        """Goes on by one token of each row, int32[B]; raises ValueError past the exported number of new tokens."""
        if state.step >= self.manifest["new_tokens"]:
            raise ValueError(f"the model was exported for answers of {self.manifest['new_tokens']} tokens")
        inputs: dict[str, Any] = {"token": np.asarray(token, np.int32), "step": np.int32(state.step)}
        out = self._programs["decode"](inputs | {"attention_mask": state.attention_mask}, state.cache)
        return replace(state, logits=out.pop("logits"), step=state.step + 1, cache=out)

    def generate(
        self,
        input_ids: np.ndarray,
        attention_mask: np.ndarray,
        images: np.ndarray,
        depths: np.ndarray | None = None,
        masks: Sequence[np.ndarray] | None = None,
        max_new_tokens: int | None = None,
    ) -> np.ndarray:
        """Greedy answers to left-padded prompts (arguments as in `prefill`): int32[B, max_new_tokens], eos after a row's first eos."""
        count = self.new_tokens(max_new_tokens)
        rows, eos = len(input_ids), self.manifest["token_ids"]["eos"]
        if not rows:
            raise ValueError("there is no prompt")
        given: tuple[Any, ...] = (input_ids, attention_mask, images, depths, masks)
        filled: list[Any] = [None if x is None else self._filled_up(x) for x in given]
        state = self.prefill(*filled)
        written, ended = np.full((rows, count), eos, np.int32), np.zeros(rows, bool)
        for step in range(count):
            token = np.asarray(jnp.argmax(state.logits, axis=-1))
            written[:, step] = np.where(ended, eos, token[:rows])
            ended |= written[:, step] == eos
            if ended.all() or step + 1 == count:
                break
            state = self.decode(state, token)
        return written

    def _filled_up(self, rows: Any) -> Any:
        """Rows with copies of the last one, where the model was exported for a fixed number of them."""
        missing = (self.manifest["batch"] or len(rows)) - len(rows)
        if missing < 0:
            raise ValueError(f"{len(rows)} rows, the model was exported for {self.manifest['batch']}")
        if isinstance(rows, np.ndarray):
            return np.concatenate([rows, *[rows[-1:]] * missing])
        return [*rows, *[rows[-1]] * missing]


def _call(exported: jax.export.Exported) -> Callable[..., dict[str, jax.Array]]:
    """call(parameters, inputs, cache) of a program; the cache is given away, so that a step writes into it instead of copying it."""

    def call(
        params: dict[str, jax.Array], inputs: dict[str, jax.Array], cache: dict[str, jax.Array] | None = None
    ) -> dict[str, jax.Array]:
        return exported.call(params, {**inputs, **(cache or {})})

    return jax.jit(call, donate_argnums=2)


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    answer_questions(lambda folder: ExportedModel(folder), __file__, __doc__, arguments)


if __name__ == "__main__":
    main()
