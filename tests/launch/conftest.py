"""A stand-in for what the launchers run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import pytest

from launch.pods.commands import CommandError, Runner


class Recorder(Runner):
    """Records commands instead of running them; `answers` maps a word of a command to what it prints, in order."""

    def __init__(self, answers: dict[str, list[str]] | None = None):
        self.commands: list[list[str]] = []
        self.said: list[str] = []
        self.texts: list[str | None] = []
        self.answers = answers
        self.failing: Callable[[Sequence[str]], bool] = lambda command: False
        self.asked: dict[str, int] = defaultdict(int)

    def run(self, command, text=None):
        self.commands.append(list(command))
        self.texts.append(text)
        if self.failing(command):
            raise CommandError(f"{command[0]} failed")

    def read(self, command, assumed):
        self.commands.append(list(command))
        if self.answers is None:
            return 0, assumed
        word = next(word for word in self.answers if word in command)
        answer = self.answers[word][self.asked[word]]
        self.asked[word] += 1
        return (1, answer) if "NOT_FOUND" in answer else (0, answer)

    def say(self, what):
        self.said.append(what)

    def pause(self, seconds):
        assert seconds > 0


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder
