"""SmolRGPT in JAX: training and evaluation of a small spatial vision-language model.

`load(path)` gives a model with NumPy in and out.
"""

from typing import Any

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # Imported on first use, so that data tools that need no model do not start JAX.
    if name == "load":
        from smolrgpt_jax.model import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
