"""What the benchmarks share: turns, tables."""

from __future__ import annotations

from benchmarks import shared


def test_runs_take_turns_after_one_to_warm_up(monkeypatch):
    clock = iter(range(0, 10_000, 2))
    monkeypatch.setattr(shared.time, "perf_counter", lambda: float(next(clock)))
    calls = []
    seconds = shared.by_turns([lambda: calls.append("a"), lambda: calls.append("b")], rounds=3)
    assert seconds == [2.0, 2.0] and calls == ["a", "b"] * 4


def test_a_table_has_a_line_under_each_column():
    assert shared.markdown(r"| \|a\|", ["x | 1"]).splitlines() == [r"| | \|a\| |", "|---|---|", "| x | 1 |"]
