"""The curriculum as data: which parameters a stage trains, and at which peak learning rate.

The published stages are those of the paper (arXiv 2509.15490); `backbone` trains a small model from scratch where no
pretrained backbone can be had.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from smolrgpt_jax.errors import RunError

FROZEN = None


@dataclass(frozen=True)
class Group:
    """Parameters whose name matches `pattern` (from its start), and their peak learning rate, or FROZEN."""

    name: str
    pattern: str
    peak: float | None


@dataclass(frozen=True)
class Stage:
    """One stage of the curriculum.

    Attributes:
      groups: the first that matches a parameter decides.
      regions: whether pictures come with depth and regions.
      after: the stages it may follow, none where it may start from random parameters.
    """

    name: str
    groups: tuple[Group, ...]
    regions: bool = True
    after: tuple[str, ...] = ()

    def check_order(self, previous: str | None) -> None:
        """Raises RunError if this stage makes no sense after the stage named `previous`; None: after random parameters."""
        if self.after and previous not in self.after:
            found = "random parameters" if previous is None else f"stage {previous}"
            wanted = " or ".join(self.after)
            raise RunError(f"stage {self.name} follows {wanted}, not {found}: give another config.init_from")

    def with_peaks(self, peaks: Mapping[str, float]) -> "Stage":
        """The stage with other peak learning rates for the named groups; raises RunError for a group it does not train."""
        unknown = sorted(set(peaks) - {g.name for g in self.groups if g.peak is not FROZEN})
        if unknown:
            raise RunError(f"stage {self.name} trains no group named {unknown[0]!r}")
        groups = (replace(g, peak=float(peaks[g.name])) if g.name in peaks else g for g in self.groups)
        return replace(self, groups=tuple(groups))

    def group_of(self, parameter: str) -> Group:
        """The group that decides over a parameter; raises ValueError if none does."""
        for group in self.groups:
            if re.match(group.pattern, parameter):
                return group
        raise ValueError(f"stage {self.name} says nothing of parameter {parameter!r}")

    def trained(self, parameters: Iterable[str]) -> list[str]:
        """The names of the parameters that this stage trains."""
        return [p for p in parameters if self.group_of(p).peak is not FROZEN]


PARTS = {
    "vision_encoder": "vision_encoder/",
    "rgb_connector": "rgb_connector/",
    "depth_connector": "depth_connector/",
    "refiners": "(rgb|depth)_refiner/",
    "decoder": "decoder/",
}


def _published(name: str, after: tuple[str, ...], peaks: Mapping[str, float], regions: bool = True) -> Stage:
    groups = tuple(Group(part, pattern, peaks.get(part, FROZEN)) for part, pattern in PARTS.items())
    return Stage(name, groups, regions, after)


_REGIONS = {"rgb_connector": 5e-5, "depth_connector": 5e-5, "refiners": 1e-4}
_ALL = dict.fromkeys(("rgb_connector", "depth_connector", "refiners", "decoder"), 5e-5)
STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("backbone", (Group("all", "", 2e-3),)),
        _published("connector_alignment", ("backbone", "connector_alignment"), {"rgb_connector": 1e-4}, regions=False),
        _published("refiner_alignment", ("connector_alignment", "refiner_alignment"), _REGIONS),
        _published("sft", ("refiner_alignment", "sft", "mixed"), _ALL),
        _published("mixed", ("refiner_alignment", "sft", "mixed"), _ALL),
    )
}
