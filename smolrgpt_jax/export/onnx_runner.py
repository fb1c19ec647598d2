"""Runs a SmolRGPT that was exported to ONNX, with onnxruntime and NumPy alone; pictures and text need Pillow and tokenizers too.

    python run.py --image I.png --question "Describe the picture."
    python run.py --image I.png --depth D.png --boxes 10,20,200,220 300,40,420,200 \\
        --question "How far is the pallet <mask> from the pallet <mask>?" --also "Is <mask> left of <mask>?" "Where is this?"
    python run.py --image I.png --depth D.png --masks first.png second.png --question "..."    # or a JSON file of COCO's masks

This file lies in every exported folder beside the files that it imports, and needs no smolrgpt_jax there. From Python:

    from run import ExportedModel, answer
    model = ExportedModel("FOLDER")
    answer(model, "I.png", "How tall is the pallet <mask>?", depth="D.png", boxes=[(10, 20, 200, 220)])
    ids = model.generate(input_ids, attention_mask, images, depths, masks)

A picture that is asked about again is not looked at again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smolrgpt_jax.data.inputs import check_left_padded, model_inputs
from smolrgpt_jax.errors import told
from smolrgpt_jax.export.exported import ExportedFolder, answer, answer_questions

__all__ = ["ExportedModel", "answer"]

FORMAT = "smolrgpt_jax onnx export 1"
POOLING_EPS = 1e-8


@dataclass(frozen=True)
class Picture:
    """What was seen of a picture."""

    pictures: np.ndarray  # float32[1 or 2, H, W, 3], perhaps with its depth
    tokens: np.ndarray  # float32[1, T, D]
    maps: np.ndarray | None  # float32[2, g * g, D], of a picture with depth

    def features(self, masks: np.ndarray | None) -> np.ndarray:
        """float32[1, T + 2 R, D]: image tokens, then the regions by RGB, then by depth; masks: float32[R, g, g]."""
        if self.maps is None or masks is None:
            return self.tokens
        weights = masks.reshape(len(masks), -1)
        weights = weights / (weights.sum(axis=1, keepdims=True) + np.float32(POOLING_EPS))
        return np.concatenate([self.tokens, *(weights @ refined for refined in self.maps[:, None])], axis=1)


def load(file: Path, threads: int = 0) -> Any:
    """A program as onnxruntime's session; threads: 0 for one a core."""
    try:
        from onnxruntime import InferenceSession, SessionOptions
    except ImportError as error:
        raise ImportError("this model needs the package onnxruntime: pip install onnxruntime") from error
    options = SessionOptions()
    options.intra_op_num_threads = threads
    return InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


class Decoder:
    """The decoder and its cache."""

    def __init__(self, session: Any, tokens: int):
        """tokens: that the cache holds."""
        from onnxruntime import OrtValue

        self._session, self._binding = session, session.io_binding()
        shapes = {array.name: array.shape for array in (*session.get_inputs(), *session.get_outputs())}
        for name, (_, heads, _, dim) in ((n, s) for n, s in shapes.items() if n.startswith(("keys_", "values_"))):
            # One memory for the old cache and the new: a step writes its column alone.
            cache = OrtValue.ortvalue_from_numpy(np.zeros((1, heads, tokens, dim), np.float32))
            self._binding.bind_ortvalue_input(name, cache)
            self._binding.bind_ortvalue_output(f"new_{name}", cache)
        self._logits = np.empty((1, shapes["logits"][1]), np.float32)
        where = ("cpu", 0, np.float32, self._logits.shape, self._logits.ctypes.data)
        self._binding.bind_output("logits", *where)
        self._text = np.zeros((1, 1, shapes["features"][2]), np.float32) if "features" in shapes else None

    def read(
        self, ids: np.ndarray, start: int, index: np.ndarray | None = None, features: np.ndarray | None = None
    ) -> np.ndarray:
        """Reads tokens int[n] behind the first `start` of the cache; returns the next one's logits float32[V], until the next call.

        index: of the features, float32[1, F, D], that take the tokens' places, -1 for text.
        """
        end = start + len(ids)
        given = {"input_ids": np.asarray(ids, np.int64)[None], "last": np.array([end - 1], np.int32)}
        given["total"] = np.array(end, np.int32)
        if self._text is not None:
            given["feature_index"] = np.full((1, len(ids)), -1) if index is None else index[None].astype(np.int64)
            given["features"] = self._text if features is None else features
        for name, value in given.items():
            self._binding.bind_cpu_input(name, value)
        self._session.run_with_iobinding(self._binding)
        return self._logits[0]


class ExportedModel(ExportedFolder):
    """An exported folder, loaded; it remembers the last picture, and is for one thread at a time."""

    def __init__(self, folder: str | Path, threads: int = 0):
        """Reads the folder; threads: 0 for one a core. Raises ValueError if it is damaged, ImportError without onnxruntime."""
        super().__init__(folder, FORMAT)
        self._programs = {name: load(self.folder / f"{name}.onnx", threads) for name in self.manifest["programs"]}
        self._decoder = Decoder(self._programs["decoder"], self.manifest["prompt_tokens"] + self.manifest["new_tokens"])
        self._picture: Picture | None = None
        self._prefix = np.zeros(0, np.int32)  # the ids up to the picture's end that the cache begins with

    def generate(
        self,
        input_ids: np.ndarray,
        attention_mask: np.ndarray,
        images: np.ndarray,
        depths: np.ndarray | None = None,
        masks: Sequence[np.ndarray | None] | None = None,
        max_new_tokens: int | None = None,
    ) -> np.ndarray:
        """Greedy answers to left-padded prompts, one after the other: int32[B, max_new_tokens], eos after a row's first eos.

        Arguments and errors: see `inputs.model_inputs`; None: as many tokens as the model was exported for.
        """
        count, eos = self.new_tokens(max_new_tokens), self.manifest["token_ids"]["eos"]
        if not len(input_ids):
            raise ValueError("there is no prompt")
        given = model_inputs(self.sizes, input_ids, attention_mask, images, depths, masks)
        check_left_padded(given["attention_mask"])
        self.check_prompts(given["attention_mask"])
        written = np.full((len(input_ids), count), eos, np.int32)
        for row, attended in enumerate(given["attention_mask"] != 0):
            depth, regions = (given[name][row] if name in given else None for name in ("depths", "region_masks"))
            features = self._look(given["images"][row], depth).features(regions)
            ids, index = (given[name][row][attended] for name in ("tokens", "feature_index"))
            logits, length = self._read_prompt(ids, index, features)
            for step in range(count):
                written[row, step] = np.argmax(logits)
                if written[row, step] == eos or step + 1 == count:
                    break
                logits = self._decoder.read(written[row, step : step + 1], length + step)
        return written

    def _look(self, image: np.ndarray, depth: np.ndarray | None) -> Picture:
        """What there is to see; image, depth: float32[H, W, 3]."""
        seen, given = self._picture, [image] if depth is None else [image, depth]
        if seen is None or not np.array_equal(seen.pictures, given):
            pictures = np.stack(given)
            image_tokens, depth_tokens = self._programs["encode"].run(None, {"pictures": pictures})
            tokens = {"image_tokens": image_tokens, "depth_tokens": depth_tokens}
            maps = None if depth is None else self._programs["refine"].run(None, tokens)[0]
            self._picture = seen = Picture(pictures, image_tokens, maps)
            self._prefix = self._prefix[:0]
        return seen

    def _read_prompt(self, ids: np.ndarray, index: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, int]:
        """Reads a prompt, ids and feature index int32[n] each, but for a beginning that the cache holds; returns logits and n."""
        seen = np.flatnonzero((index >= 0) & (index < self.sizes.image_tokens))
        # Up to the picture's end, where nothing of a question stands before it.
        end = min(int(seen[-1]) + 1, len(ids) - 1) if seen.size else 0
        prefix = ids[:end] if (index[:end] < self.sizes.image_tokens).all() else ids[:0]
        start = len(prefix) if np.array_equal(prefix, self._prefix) else 0
        self._prefix = ids[:0]  # should reading be interrupted
        logits = self._decoder.read(ids[start:], start, index[start:], features)
        self._prefix = prefix
        return logits, len(ids)


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    answer_questions(lambda folder: ExportedModel(folder), __file__, __doc__, arguments)


if __name__ == "__main__":
    main()
