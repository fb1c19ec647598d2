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

import argparse
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from smolrgpt_jax.data.inputs import PICTURES, InputSizes, check_left_padded, model_inputs
from smolrgpt_jax.data.masks import MASK, resample_rle
from smolrgpt_jax.data.workings import answer_lines
from smolrgpt_jax.errors import told
from smolrgpt_jax.files import as_path, read_json

FORMAT = "smolrgpt_jax export 2"
MANIFEST, PARAMETERS, TOKENIZER, SUFFIX = ("manifest.json", "parameters.safetensors", "tokenizer", "jax_export")


@dataclass(frozen=True)
class Decoding:
    """Where the decoding of a batch stands."""

    logits: jax.Array  # float32[B, V], of the next token
    step: int  # tokens decoded so far
    attention_mask: jax.Array  # int32[B, S], of the prompts
    cache: dict[str, jax.Array]  # each layer's keys and values, used up by the next `decode`


class ExportedModel:
    """An exported folder, loaded to the default device."""

    def __init__(self, folder: str | Path):
        """Reads the folder; raises ValueError if it is damaged or was not exported for the default device's platform."""
        self.folder = as_path(folder)
        try:
            self.manifest: dict[str, Any] = read_json(self.folder / MANIFEST)
            form = self.manifest["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.folder} is no exported model: no readable {MANIFEST}") from error
        if form != FORMAT:
            raise ValueError(f"{self.folder} has the format {form!r}, this program reads {FORMAT!r}")
        sums = self.manifest.get("sha256")
        if not isinstance(sums, dict) or sums.get(MANIFEST, digest(self.manifest)) != digest(self.manifest):
            raise ValueError(f"{self.folder} is damaged: {MANIFEST} is not the file that was exported")
        platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
        if platform not in self.manifest["platforms"]:
            made = ", ".join(self.manifest["platforms"])
            raise ValueError(f"{self.folder} was exported for {made}, the default device is of platform {platform}")
        for name, expected in sums.items():
            if not (self.folder / name).is_file():
                raise ValueError(f"{self.folder} is damaged: {name} is missing")
            # What reads and asks may be adapted, what it runs may not.
            if name != MANIFEST and not name.endswith(".py") and sha256(self.folder / name) != expected:
                raise ValueError(f"{self.folder} is damaged: {name} is not the file that was exported")
        self.sizes = InputSizes(*(self.manifest[field.name] for field in fields(InputSizes)))
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
        for row, length in enumerate(inputs["attention_mask"].sum(axis=1)):
            if length > longest:
                raise ValueError(f"row {row} has {length} prompt tokens, the model was exported for {longest}")
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
        most = self.manifest["new_tokens"]
        count = most if max_new_tokens is None else max_new_tokens
        if not 1 <= count <= most:
            raise ValueError(f"{count} new tokens are asked for, the model was exported for 1 to {most}")
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

    def prompt(self, question: str) -> np.ndarray:
        """The ids of a question about a picture, int32[n], with one "<mask>" per region; needs the package tokenizers."""
        chat = self.manifest["chat"]
        start, *rest = question.split(MASK)
        for number, text in enumerate(rest):
            start += f"{number if chat['region_names'] else ''}{chat['region']}{text}"
        picture = [self.manifest["token_ids"]["image"]] * self.manifest["image_tokens"]
        user, asked, assistant = (
            self._tokenizer().encode(text, add_special_tokens=False).ids
            for text in (chat["user"], start + chat["end"], chat["assistant"])
        )
        return np.array([*user, *picture, *asked, *assistant], np.int32)

    def text(self, ids: np.ndarray) -> str:
        """The text of a generated row up to its first eos; needs the package tokenizers."""
        ended = np.flatnonzero(ids == self.manifest["token_ids"]["eos"])
        return self._tokenizer().decode(ids[: ended[0] if ended.size else None].tolist()).strip()

    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.folder / TOKENIZER / "tokenizer.json"))

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


def sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(manifest: dict[str, Any]) -> str:
    """Of what a manifest says besides checksums."""
    held = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.register("type", Path, as_path)
    parser.add_argument(
        "--model", type=Path, default=Path(__file__).parent, help="exported folder (default: this file's)"
    )
    # Imported here: only this needs Pillow.
    from smolrgpt_jax.data.images import load_depth, load_rgb
    from smolrgpt_jax.data.regions import parse_arguments, what_is_asked

    args = parse_arguments(parser, arguments)
    question, regions = what_is_asked(args)
    model = ExportedModel(args.model)
    side = model.sizes.image_size
    pictures: list[Any] = [load_rgb(args.image, side)[None]]
    if regions:
        # Sampled here, since sampling again on the same grid changes nothing: dense masks would take as much memory as pictures.
        masks = np.stack([resample_rle(region, model.sizes.mask_grid) for region in regions], axis=-1)
        pictures += [load_depth(args.depth, side, beside=args.image)[None], [masks]]
    prompt = model.prompt(question)[None]
    ids = model.generate(prompt, np.ones_like(prompt), *pictures)[0]
    print(answer_lines(model.text(ids)))
    if model.manifest["token_ids"]["eos"] not in ids:
        cut = f"the answer was cut off after {len(ids)} tokens, the most this model was exported for"
        print(cut, file=sys.stderr)


if __name__ == "__main__":
    main()
