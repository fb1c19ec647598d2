"""A run's settings: compared with those it was started with, and checked as far as no data are needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

from smolrgpt_jax.config import PRESETS, RematPolicy
from smolrgpt_jax.data.images import DEPTH_MODES
from smolrgpt_jax.data.records import BadRecords
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

MAX_SEED = 2**31 - 1
CHOICES = {
    "model.compute_dtype": ("float32", "bfloat16"),
    "model.remat": get_args(RematPolicy),
    "data.depth_mode": DEPTH_MODES,
    "data.on_bad_record": BadRecords.POLICIES,
}
# What numbers must be, and the settings that must be so. Where 0 is allowed for a count, it means "never", "none" or "chosen".
RANGES: tuple[tuple[str, Callable[[float], bool], tuple[str, ...]], ...] = (
    (
        "at least 1",
        lambda value: value >= 1,
        (
            "batch_rows",
            "accumulation",
            "keep",
            "validation_rows",
            "validation_answer_tokens",
            "data.max_row_tokens",
            "data.row_pictures",
            "data.threads",
        ),
    ),
    (
        "at least 0",
        lambda value: value >= 0,
        (
            "question_balance",
            "epochs",
            "steps",
            "stop_epochs",
            "log_every",
            "save_every",
            "validate_every",
            "validation_answers",
            "patience",
            "profile.first",
            "profile.steps",
            "optimizer.final",
            "optimizer.weight_decay",
            "data.row_tokens",
            "data.row_regions",
            "data.cached_pictures",
            "data.workers",
        ),
    ),
    ("above 0", lambda value: value > 0, ("optimizer.clip_norm", "optimizer.eps")),
    ("from 0 to 1", lambda value: 0 <= value <= 1, ("optimizer.warmup",)),
    ("at least 0 and below 1", lambda value: 0 <= value < 1, ("optimizer.b1", "optimizer.b2")),
    (f"from 0 to {MAX_SEED}", lambda value: 0 <= value <= MAX_SEED, ("seed",)),
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
    for name, value, known in (("stage", run["stage"], STAGES), ("model.preset", run["model"]["preset"], PRESETS)):
        if value not in known:
            raise ValueError(f"config.{name} {value!r} is not one of {', '.join(known)}")


def check_values(run: Mapping[str, Any]) -> None:
    """Raises ValueError for a choice that does not exist or a number that means nothing."""
    for name, known in CHOICES.items():
        value = _setting(run, name)
        if value not in known:
            raise ValueError(f"config.{name} {value!r} is not one of {', '.join(known)}")
    for what, holds, names in RANGES:
        for name in names:
            _check_number(name, _setting(run, name), what, holds)
    for group, peak in run["optimizer"]["peaks"].items():
        _check_number(f"optimizer.peaks.{group}", peak, "at least 0", lambda value: value >= 0)
    for name, weight in run["data"]["weights"].items():
        if name not in run["data"]["sources"]:
            raise ValueError(f"config.data.weights has {name!r}, which is not in config.data.sources")
        _check_number(f"data.weights.{name}", weight, "above 0", lambda value: value > 0)
    if not run["steps"] and not run["epochs"]:
        raise ValueError("config.steps and config.epochs are both 0, one of them must be above 0")


def check_order(run: Mapping[str, Any], previous: str | None) -> None:
    """Raises ValueError if the run's stage makes no sense after the stage named `previous` (None: after random parameters) and
    config.any_stage_order does not allow it."""
    if not run["any_stage_order"]:
        STAGES[run["stage"]].check_order(previous)


def check(run: Mapping[str, Any]) -> None:
    """Raises ValueError, one sentence, for all that can be seen to be wrong with a run before anything is read."""
    check_names(run)
    check_values(run)
    if not run["init_from"]:
        check_order(run, None)


def _setting(run: Mapping[str, Any], name: str) -> Any:
    value: Any = run
    for key in name.split("."):
        value = value[key]
    return value


def _check_number(name: str, value: float, what: str, holds: Callable[[float], bool]) -> None:
    if not (math.isfinite(value) and holds(value)):
        raise ValueError(f"config.{name} is {value!r}, it must be a number {what}")
