"""What was found wrong, by kind: counted all, listed up to a bound."""

import dataclasses
import tomllib
from collections.abc import Collection
from pathlib import Path

TOLERATED = 0.01  # share of the things looked at up to which what spoils is told and passes
LISTED = 200  # sentences of a kind that are kept


@dataclasses.dataclass
class Problem:
    """One kind of problem and where it was found."""

    level: str  # "stops", "spoils" or "told", see problems.toml
    title: str
    about: str
    tolerated: float = TOLERATED
    count: int = 0
    of: int = 0  # things of its kind that were looked at
    sentences: list[str] = dataclasses.field(default_factory=list)  # the first LISTED, each naming file and record
    accepted: bool = False

    @property
    def wrong(self) -> bool:
        """Whether a training should not begin."""
        few = self.level == "spoils" and self.count <= self.tolerated * self.of
        return bool(self.count) and self.level != "told" and not few and not self.accepted


_FILE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
KINDS = tuple(_FILE)


class Problems:
    """All kinds of problems, in the order of problems.toml."""

    def __init__(self, accepted: Collection[str] = ()):
        """accepted: kinds that are told and leave the command's status as it is."""
        self.kinds = {name: Problem(**how, accepted=name in accepted) for name, how in _FILE.items()}

    def add(self, kind: str, sentence: object, count: int = 1) -> None:
        """One more of a kind; `count`: how many records the sentence stands for."""
        found = self.kinds[kind]
        found.count += count
        if len(found.sentences) < LISTED:
            found.sentences.append(" ".join(str(sentence).split()))

    def looked(self, number: int, *kinds: str) -> None:
        """So many more things were looked at for these kinds."""
        for kind in kinds:
            self.kinds[kind].of += number

    @property
    def found(self) -> dict[str, Problem]:
        """The kinds that occurred: what is wrong first."""
        occurred = {name: problem for name, problem in self.kinds.items() if problem.count}
        return dict(sorted(occurred.items(), key=lambda item: not item[1].wrong))

    @property
    def wrong(self) -> int:
        """How many kinds should stop a training from being begun."""
        return sum(problem.wrong for problem in self.kinds.values())
