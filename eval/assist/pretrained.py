"""Pretrained models of `transformers`, in PyTorch: from a folder or the hub, whole or not at all."""

from pathlib import Path
from typing import Any

from smolrgpt_jax.errors import DataError


def packages(doing: str, without: str) -> tuple[Any, Any]:
    """torch and transformers; raises ImportError, which says what needs them and what does without."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise ImportError(
            f"{doing} needs the package {error.name}: pip install -e '.[assist]'; or {without}"
        ) from error
    return torch, transformers


def pretrained(kind: Any, folder: Path, name: str, **how: Any) -> Any:
    """What `kind.from_pretrained` makes of a folder; raises DataError, by the model's name, where it makes nothing."""
    try:
        return kind.from_pretrained(folder, **how)
    except (OSError, ValueError, LookupError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{name} cannot be loaded ({reason})") from error


def network(kind: Any, folder: Path, name: str) -> Any:
    """A module of such a class in float32, of safetensors alone, for inference; raises DataError, also where tensors are missing."""
    found, loading = pretrained(kind, folder, name, dtype="float32", use_safetensors=True, output_loading_info=True)
    # Tensors that are not there would be drawn at random, with a warning.
    if missing := sorted(loading["missing_keys"]):
        raise DataError(f"{name} lacks {len(missing)} tensors, among them {missing[0]}")
    return found.eval()
