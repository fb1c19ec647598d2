"""Every setting of a training run, declared once, in settings.toml: default, what it may be and does, and whether a resumed run may
change it.

Defaults are the published values where the paper gives one. A name with dots is a key in a section: `data.row_tokens`.
"""

import copy
import dataclasses
import difflib
import functools
import json
import operator
import os
import re
import sys
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from smolrgpt_jax.config import PRESETS, Dtype, RematPolicy, misfit
from smolrgpt_jax.data.images import DEPTH_MODES
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.errors import RunError
from smolrgpt_jax.training.stages import STAGES

MAX_SEED = 2**31 - 1
MOST = 2**53  # of what is counted


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Published values. warmup: fraction of the steps; final: last learning rate as a fraction of the peak."""

    warmup: float = 0.03
    final: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that a setting may be: in words, and as a test."""

    what: str
    holds: Callable[[float], bool]

    def check(self, name: str, value: float) -> None:
        """Raises RunError for a number outside, for one that no array counts to, and for what is no number."""
        most = MOST if type(value) is int else sys.float_info.max
        if misfit(value, 0.0) or not (abs(value) <= most and self.holds(value)):
            raise RunError(f"config.{name} is {value!r}, it must be a number {self.what}")


POSITIVE = Range("above 0", lambda value: value > 0)
AT_LEAST_0 = Range("at least 0", lambda value: value >= 0)
AT_LEAST_1 = Range("at least 1", lambda value: value >= 1)
SHARE = Range("from 0 to 1", lambda value: 0 <= value <= 1)
DECAY = Range("at least 0 and below 1", lambda value: 0 <= value < 1)
SEED = Range(f"from 0 to {MAX_SEED}", lambda value: 0 <= value <= MAX_SEED)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting. allowed: the numbers, or the names, that it may be; changeable: in a resumed run, since no result depends on it."""

    default: Any
    doc: str
    allowed: Range | Collection[str] | None = None
    changeable: bool = False

    def check(self, name: str, value: Any) -> None:
        """Raises RunError, one sentence, for a value that is not allowed or of another kind than the default."""
        if wrong := misfit(value, self.default):
            raise RunError(f"config.{name} is {value!r}, expected {wrong}")
        if isinstance(self.allowed, Range):
            self.allowed.check(name, value)
        elif self.allowed is not None and value not in self.allowed:
            raise RunError(f"config.{name} {value!r} is not one of {', '.join(self.allowed)}")


# What settings.toml calls the numbers, or the names, that a setting may be.
ALLOWED: dict[str, Range | Collection[str]] = {
    **{numbers.what: numbers for numbers in (POSITIVE, AT_LEAST_0, AT_LEAST_1, SHARE, DECAY)},
    **{
        "seeds": SEED,
        "stages": STAGES,
        "presets": PRESETS,
        "dtypes": get_args(Dtype),
        "remat": ("auto", *get_args(RematPolicy)),
    },
    **{"depth modes": DEPTH_MODES, "policies": BadRecords.POLICIES},
}
_FILE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_OPTIMIZER = {f"optimizer.{name}": {"default": value} for name, value in dataclasses.asdict(OptimizerConfig()).items()}
SETTINGS: dict[str, Setting] = {
    name: Setting(**_OPTIMIZER.get(name, {}) | how | ({"allowed": ALLOWED[how["allowed"]]} if "allowed" in how else {}))
    for name, how in _FILE.items()
}
# What the hosts of a run need not have in common: where things lie, and how they are read.
OWN = ("init_from", "tokenizer", "data.sources", "validation_sources", "data.cache", "data.threads", "data.workers")
DATA_ROOT = re.compile(r"(data\.sources|validation_sources)\..+\.root")
# What runs of settings that do not exist any more had to have, for their computation to be the same.
RETIRED: dict[str, Any] = {"fresh": [], "any_stage_order": False}


def defaults() -> dict[str, Any]:
    """All settings at their defaults, sections as nested dicts."""
    run: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        *sections, key = name.split(".")
        part = run
        for section in sections:
            part = part.setdefault(section, {})
        part[key] = setting.default
    return copy.deepcopy(run)


def describe() -> str:
    """One line per setting for `--help`: its flag, default, range and what it does."""
    lines = []
    for name, setting in SETTINGS.items():
        allowed = setting.allowed
        what = "" if allowed is None else allowed.what if isinstance(allowed, Range) else "|".join(allowed)
        lines.append(f"  --config.{name}={setting.default}: {setting.doc}{what and f' ({what})'}")
    return "\n".join(lines)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One phrase per setting that differs and may not change on resume.

    A setting that one side does not know counts as its default, or for a retired one as the value that means the same as without.
    Where data lies is not compared, since the data is. What a run started from is read only once, so it may be gone: another place is
    taken for the new one unless there is still something at the old.
    """
    found = []
    for key in sorted(old.keys() | new.keys()):
        name = f"{prefix}{key}"
        neutral = SETTINGS[name].default if name in SETTINGS else RETIRED.get(name)
        if any(isinstance(side.get(key), Mapping) for side in (old, new)):
            neutral = {}
        a, b = old.get(key, neutral), new.get(key, neutral)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{name}.")
        elif not _is_alike(name, a, b):
            found.append(f"{name} was {a!r}, is {b!r}")
    return found


def _is_alike(name: str, a: Any, b: Any) -> bool:
    if name in ("init_from", "tokenizer") and a and b:
        return os.path.realpath(a) == os.path.realpath(b) or not os.path.exists(a)
    return a == b or DATA_ROOT.fullmatch(name) is not None or (name in SETTINGS and SETTINGS[name].changeable)


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back, so that what was saved compares with what is given."""
    return json.loads(json.dumps(settings))


def flat(run: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run by their names with dots; raises RunError where one is missing."""
    found: dict[str, Any] = {}
    for name in SETTINGS:
        try:
            found[name] = functools.reduce(operator.getitem, name.split("."), run)
        except (KeyError, IndexError, TypeError):
            raise RunError(f"config.{name} is missing") from None
    return found


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name of a setting, such as data.row_tokens, that is likely meant; None where none is known."""
    known = list(known)
    # A key of the right name in another section is nearer than one that is spelt alike.
    same = [other for other in known if other.split(".")[-1] == name.split(".")[-1]]
    near = same or difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return near[0] if near else None


def _check_known(run: Mapping[str, Any], prefix: str = "") -> None:
    for key, value in run.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and any(known.startswith(f"{name}.") for known in SETTINGS):
            _check_known(value, f"{name}.")
        elif name not in SETTINGS and name not in RETIRED:
            raise RunError(f"config.{name} is no setting, the nearest is {nearest(name, SETTINGS)!r}")


def check(run: Mapping[str, Any]) -> None:
    """Raises RunError for all that can be seen to be wrong with a run of a published stage before anything is read."""
    check_values(run)
    if not run["init_from"]:
        STAGES[run["stage"]].check_order(None)


def check_values(run: Mapping[str, Any]) -> None:
    """Raises RunError, one sentence, for a setting or choice that does not exist and for a value that means nothing."""
    if not isinstance(run, Mapping):
        raise RunError(f"config is {run!r}, expected sections of settings")
    _check_known(run)
    for name, value in flat(run).items():
        SETTINGS[name].check(name, value)
    for group, peak in run["optimizer"]["peaks"].items():
        AT_LEAST_0.check(f"optimizer.peaks.{group}", peak)
    weights, sources = run["data"]["weights"], run["data"]["sources"]
    for name, weight in weights.items():
        if name not in sources:
            raise RunError(f"config.data.weights has {name!r}, which is not in config.data.sources")
        POSITIVE.check(f"data.weights.{name}", weight)
    for name in sources if weights else ():
        if name not in weights:
            unread = f"{name!r}, which is in config.data.sources and would not be read"
            raise RunError(f"config.data.weights has no {unread}")
    if not run["steps"] and not run["epochs"]:
        raise RunError("config.steps and config.epochs are both 0, one of them must be above 0")
