"""Runs an exported SmolRGPT with jax, numpy, safetensors and flatbuffers alone; pictures and text need Pillow and tokenizers too.

    python run.py --image I.png --question "Describe the picture."
    python run.py --image I.png --depth D.png --boxes 10,20,200,220 300,40,420,200 \\
        --question "How far is the pallet <mask> from the pallet <mask>?"

This file is copied into every exported folder as run.py and imports nothing of smolrgpt_jax. From Python:

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

FORMAT = "smolrgpt_jax export 1"
MANIFEST, PARAMETERS, TOKENIZER, SUFFIX = ("manifest.json", "parameters.safetensors", "tokenizer", "jax_export")
MASK = "<mask>"


@dataclass(frozen=True)
class Decoding:
    """Where the decoding of a batch stands.

    logits: float32[B, V] of the next token; step: tokens decoded so far; attention_mask: int32[B, S] of the prompts; cache:
    keys and values, float[L, B, S + N, G, D], used up by the next `decode`.
    """

    logits: jax.Array
    step: int
    attention_mask: jax.Array
    cache: dict[str, jax.Array]


class ExportedModel:
    """An exported folder, loaded to the default device."""

    def __init__(self, folder: str | Path):
        """Reads the folder; raises ValueError if it is damaged or was not exported for the default device's platform."""
        self.folder = Path(folder)
        try:
            self.manifest: dict[str, Any] = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
            form = self.manifest["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.folder} is no exported model: no readable {MANIFEST}") from error
        if form != FORMAT:
            raise ValueError(f"{self.folder} has the format {form!r}, this program reads {FORMAT!r}")
        platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
        if platform not in self.manifest["platforms"]:
            made = ", ".join(self.manifest["platforms"])
            raise ValueError(f"{self.folder} was exported for {made}, the default device is of platform {platform}")
        for name, expected in self.manifest["sha256"].items():
            if not (self.folder / name).is_file():
                raise ValueError(f"{self.folder} is damaged: {name} is missing")
            with open(self.folder / name, "rb") as file:
                # run.py may be adapted, what it runs may not.
                if name != "run.py" and hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    raise ValueError(f"{self.folder} is damaged: {name} is not the file that was exported")
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
        """Reads left-padded prompts.

        input_ids, attention_mask: int[B, up to S]; images: float32[B, H, W, 3] in [-1, 1]; depths: the same shape, in [0, 1],
        or None; masks: B arrays [Hm, Wm, R] of zeros and ones, of any size and number of regions, or None. Without depths or
        masks only the image tokens are replaced. Raises ValueError naming the row or array that does not fit.
        """
        ids, mask = self._prompts(np.asarray(input_ids), np.asarray(attention_mask))
        side = self.manifest["image_size"]
        for name, pictures in (("images", images), ("depths", depths)):
            if pictures is not None and np.shape(pictures) != (len(ids), side, side, 3):
                raise ValueError(f"{name} has shape {np.shape(pictures)}, expected {(len(ids), side, side, 3)}")
        given = np.zeros(len(ids), np.int32)
        inputs = {"images": np.asarray(images, np.float32)}
        if depths is not None and masks is not None:
            if len(masks) != len(ids):
                raise ValueError(f"{len(masks)} mask arrays for {len(ids)} rows")
            given = np.array([np.shape(of_row)[-1] for of_row in masks], np.int32)
            self._check_tokens(ids, mask, given)
        else:
            self._check_tokens(ids, mask, None)
        if given.any():
            inputs["depths"] = np.asarray(depths, np.float32)
            inputs["region_masks"] = self._sampled(masks)
        encoded = self._programs["encode" if given.any() else "encode_rgb"](inputs)
        out = self._programs["prefill"]({"input_ids": ids, "attention_mask": mask, "regions": given, **encoded})
        return Decoding(out.pop("logits"), 0, jnp.asarray(mask), out)

    def decode(self, state: Decoding, token: np.ndarray | jax.Array) -> Decoding:
        """Goes on by one token of each row, int32[B]; raises ValueError past the exported number of new tokens."""
        if state.step >= self.manifest["new_tokens"]:
            raise ValueError(f"the model was exported for answers of {self.manifest['new_tokens']} tokens")
        inputs = {
            "token": jnp.asarray(token, jnp.int32),
            "step": jnp.int32(state.step),
            "attention_mask": state.attention_mask,
        }
        out = self._programs["decode"](inputs, state.cache)
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
        given = (input_ids, attention_mask, images, depths, masks)
        state = self.prefill(*(None if x is None else self._filled_up(x) for x in given))
        written = np.full((rows, count), eos, np.int32)
        ended = np.zeros(rows, bool)
        for step in range(count):
            token = jnp.argmax(state.logits, axis=-1).astype(jnp.int32)
            written[:, step] = np.where(ended, eos, np.asarray(token)[:rows])
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
        ids, eos = list(map(int, ids)), self.manifest["token_ids"]["eos"]
        end = ids.index(eos) if eos in ids else len(ids)
        return self._tokenizer().decode(ids[:end], skip_special_tokens=True).strip()

    def _tokenizer(self):
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

    def _prompts(self, ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Prompts padded, or their padding cut, to the exported length: int32[B, S] each."""
        if ids.ndim != 2 or ids.shape != mask.shape:
            raise ValueError(f"input_ids {ids.shape} and attention_mask {mask.shape} must both be [B, S]")
        batch = self.manifest["batch"] or len(ids)
        if len(ids) != batch:
            raise ValueError(f"{len(ids)} rows, the model was exported for {batch}")
        mask, longest = (mask != 0).astype(np.int32), self.manifest["prompt_tokens"]
        for row, attended in enumerate(mask):
            if not attended[-1:].any() or np.any(np.diff(attended) < 0):
                raise ValueError(f"row {row} is not padded on the left")
            if attended.sum() > longest:
                raise ValueError(f"row {row} has {attended.sum()} prompt tokens, the model was exported for {longest}")
        pad = ((0, 0), (max(0, longest - ids.shape[1]), 0))
        fill = self.manifest["token_ids"]["pad"]
        ids = np.pad(ids, pad, constant_values=fill)[:, -longest:]
        return ids.astype(np.int32), np.pad(mask, pad)[:, -longest:]

    def _check_tokens(self, ids: np.ndarray, mask: np.ndarray, given: np.ndarray | None) -> None:
        """Raises ValueError naming the row whose tokens and features disagree; `given`: regions of each row, if they are used."""
        most = self.manifest["regions"]
        tokens = self.manifest["token_ids"]
        for row in range(len(ids)):
            if given is not None and given[row] > most:
                raise ValueError(f"row {row} has {given[row]} regions, the model was exported for {most}")
            available = {"image": self.manifest["image_tokens"]}
            if given is not None:
                available |= {"mask_rgb": given[row], "mask_depth": given[row]}
            for name, number in available.items():
                there = int(np.sum((ids[row] == tokens[name]) & (mask[row] != 0)))
                if there > number:
                    raise ValueError(f"row {row} has {there} {name} tokens but only {number} features for them")

    def _sampled(self, masks: Sequence[np.ndarray]) -> np.ndarray:
        """The rows' masks on the model's grid, zeros for regions a row does not have: float32[B, R, g, g]."""
        grid = self.manifest["mask_grid"]
        sampled = np.zeros((len(masks), self.manifest["regions"], grid, grid), np.float32)
        for row, mask in enumerate(masks):
            sampled[row, : mask.shape[-1]] = sample_masks(mask, grid).transpose(2, 0, 1)
        return sampled


def _call(exported: jax.export.Exported) -> Callable[..., dict[str, jax.Array]]:
    """call(parameters, inputs, cache) of a program; the cache is given away, so that a step writes into it instead of copying it."""

    def call(
        params: dict[str, jax.Array], inputs: dict[str, jax.Array], cache: dict[str, jax.Array] | None = None
    ) -> dict[str, jax.Array]:
        return exported.call(params, {**inputs, **(cache or {})})

    return jax.jit(call, donate_argnums=2)


def sample_masks(masks: np.ndarray, grid: int) -> np.ndarray:
    """Bilinear with half-pixel centres and no antialiasing: [H, W, R] -> float32[grid, grid, R]."""
    (top, bottom, down), (left, right, across) = (_taps(size, grid) for size in masks.shape[:2])
    upper, lower = (
        rows[:, left] * (1 - across)[:, None] + rows[:, right] * across[:, None]
        for rows in (masks[top].astype(np.float32), masks[bottom].astype(np.float32))
    )
    return upper * (1 - down)[:, None, None] + lower * down[:, None, None]


def _taps(size: int, grid: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two pixels each point of the grid lies between, and the second one's weight."""
    place = np.maximum((np.arange(grid) + 0.5) * size / grid - 0.5, 0)
    first = np.minimum(place.astype(int), size - 1)
    return first, np.minimum(first + 1, size - 1), (place - first).astype(np.float32)


def box_masks(boxes: Sequence[str], height: int, width: int) -> np.ndarray:
    """Masks of boxes written "x1,y1,x2,y2" in pixels: uint8[height, width, number], one where a pixel's centre is inside."""
    masks = np.zeros((height, width, len(boxes)), np.uint8)
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
    for number, box in enumerate(boxes):
        try:
            x1, y1, x2, y2 = map(float, box.split(","))
        except ValueError as error:
            raise ValueError(f"box {box!r} is not x1,y1,x2,y2") from error
        masks[..., number] = (x1 <= columns) & (columns < x2) & (y1 <= rows) & (rows < y2)
        if not masks[..., number].any():
            raise ValueError(f"box {box!r} holds no pixel of the picture of {width}x{height} pixels")
    return masks


def read_picture(path: Path, side: int, resampling: int) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture file squashed to a square: float32[side, side, 3] in 0 to 255, and its own width and height in pixels."""
    from PIL import Image

    with Image.open(path) as picture:
        # Pillow would clip more bits to white.
        if picture.mode.startswith(("I", "F")):
            raise ValueError(f"picture {path} is of mode {picture.mode}, expected 8 bits per channel")
        square = picture.convert("RGB").resize((side, side), resampling)
        return np.asarray(square, np.float32), picture.size


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, default=Path(__file__).parent, help="exported folder (default: this file's)"
    )
    parser.add_argument("--image", required=True, type=Path, help="RGB picture")
    parser.add_argument("--depth", type=Path, help="8-bit depth picture; needed with regions")
    parser.add_argument("--boxes", nargs="+", default=[], metavar="X1,Y1,X2,Y2", help="the regions, in pixels")
    parser.add_argument("--question", required=True, help=f"the question, with one {MASK} per region")
    args = parser.parse_args(arguments)
    try:
        from PIL import Image

        if args.question.count(MASK) != len(args.boxes):
            raise ValueError(
                f"the question holds {args.question.count(MASK)} {MASK} but there are {len(args.boxes)} boxes"
            )
        if args.boxes and args.depth is None:
            raise ValueError("regions need a depth picture, give one with --depth")
        model = ExportedModel(args.model)
        image, (width, height) = read_picture(args.image, model.manifest["image_size"], Image.Resampling.BILINEAR)
        depths = masks = None
        if args.boxes:
            depth, _ = read_picture(args.depth, model.manifest["image_size"], Image.Resampling.NEAREST)
            if not np.all(depth == depth[..., :1]):
                raise ValueError(f"depth picture {args.depth} is coloured, expected grey")
            depths, masks = depth[None] / 255, [box_masks(args.boxes, height, width)]
        prompt = model.prompt(args.question)[None]
        ids = model.generate(prompt, np.ones_like(prompt), (image[None] / 255 - 0.5) / 0.5, depths, masks)
        print(model.text(ids[0]))
        if model.manifest["token_ids"]["eos"] not in ids[0]:
            print(
                f"the answer was cut off after {len(ids[0])} tokens, the most this model was exported for",
                file=sys.stderr,
            )
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
