"""Clicks and boxes -> masks by SAM 2 (Ravi et al. 2024) of `transformers`, whose weights were trained on photographs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from eval.assist.pretrained import network, packages
from eval.assist.tightened import extent
from smolrgpt_jax.data.images import Source, upright_rgb
from smolrgpt_jax.data.masks import RLE, decode, encode
from smolrgpt_jax.data.regions import Size
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import model_folder, read_json

Click = tuple[float, float]  # x and y in pixels of the upright picture

_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")
_TYPES = (
    "sam2",
    "sam2_video",
)  # of config.json: the published weights also follow things through videos, which is left out
# What its own processor, which needs torchvision, does to a picture: ImageNet's mean and standard deviation.
_MEAN, _STD = (np.float32(values) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def read_clicks(clicks: Sequence[Any], size: Size) -> list[Click]:
    """[[x, y], ...], of numbers or texts; raises DataError naming the click that is none in a picture of that size."""
    found = []
    for click in clicks:
        try:
            x, y = map(float, click if not isinstance(click, str) else ())
            if not (0 <= x < size[1] and 0 <= y < size[0]):
                raise ValueError
        except (TypeError, ValueError, OverflowError) as error:
            shown = ",".join(map(str, click)) if isinstance(click, list | tuple) else repr(click)
            shown = shown if shown.isprintable() else ascii(shown)
            raise DataError(f"click {shown} is not x,y inside the picture of {size[1]}x{size[0]} pixels") from error
        found.append((x, y))
    return found


class Segmenter:
    """A SAM 2 model, loaded once for any number of pictures."""

    def __init__(self, model: str):
        """model: a folder or the name of a model on the Hugging Face hub.

        Raises:
          DataError: the model cannot be used.
          ImportError: the extra `assist` is not installed.
        """
        self._torch, transformers = packages("segmenting", "mark regions by masks or boxes")
        self._name = f"segmenter {model!r}"
        folder = model_folder(model, "segmenter", _FILES)
        kind = read_json(folder / "config.json", dict).get("model_type")
        if kind not in _TYPES:
            raise DataError(f"{self._name} is of the type {kind}, expected {' or '.join(_TYPES)}")
        self._network = network(transformers.Sam2Model, folder, self._name)
        self._side = (
            self._network.config.prompt_encoder_config.image_size
        )  # of the square that pictures are squashed to

    def segment(self, picture: Source, clicks: Sequence[Click] = (), boxes: Sequence[RLE] = ()) -> tuple[RLE, ...]:
        """The masks of what is clicked at, then of what boxes hold, each within its box; the box itself where nothing is found.

        Raises DataError for a picture that cannot be used, and for a click at nothing.
        """
        rgb = upright_rgb(picture)
        scale = self._side / np.array(rgb.size)
        pixels = np.asarray(rgb.resize((self._side, self._side), Image.Resampling.BILINEAR), np.float32) / 255
        values = np.ascontiguousarray(((pixels - _MEAN) / _STD).transpose(2, 0, 1)[None])
        with self._torch.inference_mode():
            seen = self._network.get_image_embeddings(self._torch.from_numpy(values))
        found = []
        for click in clicks:
            # Of what a click may mean, a part or the whole thing, the model makes several masks and says how good they are.
            mask = self._best(seen, rgb.size, input_points=[[[scale * click]]], multimask_output=True)
            if not mask.any():
                raise DataError("{} finds nothing at the click {:g},{:g}".format(self._name, *click))
            found.append(encode(mask))
        for box in boxes:
            inside = decode(box).astype(bool)
            columns, rows = (extent(inside.any(axis=axis)) for axis in (0, 1))
            corners = np.array([[columns.start, rows.start], [columns.stop, rows.stop]])
            mask = self._best(seen, rgb.size, input_boxes=[[(scale * corners).ravel()]], multimask_output=False)
            found.append(encode(mask & inside) if (mask & inside).any() else box)
        return tuple(found)

    def _best(self, seen: Any, size: tuple[int, int], multimask_output: bool, **prompt: Any) -> np.ndarray:
        """bool[H, W] of one prompt in pixels of the square; size: (W, H)."""
        given = {name: self._torch.tensor(np.array(value), dtype=self._torch.float32) for name, value in prompt.items()}
        with self._torch.inference_mode():
            output = self._network(image_embeddings=seen, multimask_output=multimask_output, **given)
        logits = output.pred_masks[0, 0, output.iou_scores[0, 0].argmax()].numpy()
        if not np.isfinite(logits).all():
            raise DataError(f"{self._name} wrote values that are no numbers")
        return np.asarray(Image.fromarray(logits).resize(size, Image.Resampling.BILINEAR)) > 0
