"""Every setting of a training run at its default; what each means stands in smolrgpt_jax/training/settings.toml.

The stage configurations beside this file change what they must; this file is not launched itself.
"""

from ml_collections import ConfigDict

from smolrgpt_jax.training.settings import defaults


def get_config() -> ConfigDict:
    return ConfigDict(defaults())


def warehouse(root: str, split: str, annotations: str | None = None) -> dict:
    """A source in the published warehouse format."""
    source = {"format": "warehouse", "root": root, "split": split}
    return source if annotations is None else {**source, "annotations": annotations}


def captions(root: str, annotations: str, images: str) -> dict:
    """A source of captions in LLaVA's chat format."""
    return {"format": "captions", "root": root, "annotations": annotations, "images": images}


def osd(root: str) -> dict:
    """A source in the Open Spatial Dataset's format."""
    folders = {"images": "images", "depths": "depths"}
    return {"format": "osd", "root": root, "annotations": "result_10_depth_convs.json", **folders}
