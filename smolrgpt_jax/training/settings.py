"""A run's settings: compared with those it was started with, and their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smolrgpt_jax.config import PRESETS
from smolrgpt_jax.training.stages import STAGES

# Settings that do not change what is computed, so a resumed run may have others.
CHANGEABLE = frozenset(
    {
        "log_every",
        "save_every",
        "keep",
        "data.threads",
        "data.workers",
        "data.cached_pictures",
        "mesh.data",
        "mesh.fsdp",
        "mesh.tensor",
        "stop_epochs",
        "strategy",
        "model.attention",
        "profile.first",
        "profile.steps",
        "wandb_project",
    }
)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One phrase per setting that differs and is not `CHANGEABLE`."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b and f"{prefix}{key}" not in CHANGEABLE:
            found.append(f"{prefix}{key} was {a!r}, is {b!r}")
    return found


def plain(value: Any) -> Any:
    """A configuration as plain JSON types, so that what was saved compares with what is given."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def check_names(run: Mapping[str, Any]) -> None:
    """Raises ValueError if a stage or preset of that name does not exist."""
    for name, value, known in (
        ("stage", run["stage"], STAGES),
        ("model.preset", run["model"]["preset"], PRESETS),
    ):
        if value not in known:
            raise ValueError(f"config.{name} {value!r} is not one of {', '.join(known)}")
