"""Depth of a picture that comes without, by a Depth Anything model of `transformers`: a guess by looks, where a camera would measure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.assist.pretrained import network, packages, pretrained
from smolrgpt_jax.data.images import Source, upright_rgb
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import model_folder, read_json

ESTIMATE = "estimate"
DEFAULT_MODEL = "depth-anything/Depth-Anything-V2-Small-hf"
# How many times as far as the nearest point the farthest is taken to be: the geometric mean of 40 procedural scenes.
FARTHEST = 4.0
_LONGEST = 1024  # pixels of the estimate's longer side; the encoder sees less
_THINNEST = 4  # width by height or the other way round: memory grows with its square
_FILES = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json")


def model_named(depth: str | Path | None) -> str | None:
    """The model in "estimate" or "estimate:MODEL", None where that is a depth picture or nothing."""
    word, _, name = str(depth or "").partition(":")
    return (name or DEFAULT_MODEL) if word == ESTIMATE else None


class DepthModel:
    """A model, loaded once, for any number of pictures; of the family Depth Anything."""

    def __init__(self, model: str = DEFAULT_MODEL):
        """model: a folder or the name of a model on the Hugging Face hub.

        Raises:
          DataError: the model cannot be used.
          ImportError: the extra `assist` is not installed.
        """
        without = "give a depth picture, or ask a question without <mask>, which needs none"
        self._torch, transformers = packages("estimating depth", without)
        self._name = f"depth model {model!r}"
        folder = model_folder(model, "depth model", _FILES)
        self._inverse = writes_inverse(read_json(folder / "config.json", dict), model)
        self._processor = pretrained(transformers.AutoImageProcessor, folder, self._name)
        self._network = network(transformers.AutoModelForDepthEstimation, folder, self._name)

    def estimate(self, picture: Source) -> np.ndarray:
        """Distances float32[H, W] in no known unit of what a picture shows, of its shape; `answer` takes them as its depth.

        Raises DataError for a picture that cannot be used.
        """
        rgb = upright_rgb(picture)
        if max(rgb.size) > _THINNEST * min(rgb.size):
            raise DataError(f"a picture of {rgb.width}x{rgb.height} pixels is too long and thin for a depth model")
        with self._torch.inference_mode():
            output = self._network(**self._processor(images=rgb, return_tensors="pt")).predicted_depth[0].numpy()
        if not np.isfinite(output).all():
            raise DataError(f"{self._name} wrote values that are no numbers")
        scale = min(1, _LONGEST / max(rgb.size))
        size = (max(1, round(scale * rgb.width)), max(1, round(scale * rgb.height)))
        return distances(np.asarray(Image.fromarray(output).resize(size, Image.Resampling.BILINEAR)), self._inverse)


def writes_inverse(config: Mapping[str, Any], name: str) -> bool:
    """Whether a model writes inverse depth, near large, or distances, by its config.json; raises DataError where that does not say."""
    kinds = {"relative": True, "metric": False}
    kind = config.get("depth_estimation_type", "relative")
    if config.get("model_type") != "depth_anything" or kind not in kinds:
        told = "of the type depth_anything, whose configuration tells relative from metric depth"
        raise DataError(f"depth model {name!r} is of the type {config.get('model_type')}, expected one {told}")
    return kinds[kind]


def distances(output: np.ndarray, inverse: bool) -> np.ndarray:
    """What a depth model writes, finite float[H, W], as distances of no known unit, float32[H, W] above 0.

    `images.upright_depth` scales them as it scales those of a camera: the nearest dark, the farthest bright. Distances are taken as
    they are. Inverse depth is known up to scale and shift, `a / z + b`; the scale falls out, and for the shift the farthest point is
    taken to be FARTHEST times as far away as the nearest:

        output   9    5    1   (a = 8/0.3, whatever b)
        u        1    0.5  0   (scaled from the least to the most)
        1 / (1 + u (FARTHEST - 1))
                 0.25 0.4  1   -> 0, 51, 255 of 255

    The order is that of the truth in any case; `255 - value` in its place would put what is in the middle too far away.
    """
    values = np.asarray(output, np.float32)
    if not inverse:
        return np.maximum(values, np.finfo(np.float32).tiny)
    least, most = values.min(), values.max()
    nearness = (values - least) / max(most - least, np.finfo(np.float32).tiny)
    return 1 / (1 + nearness * np.float32(FARTHEST - 1))
