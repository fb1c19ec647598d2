"""Every picture with a question belongs to exactly one process, and the shares are about equal."""

from __future__ import annotations

import jax
import pytest

from smolrgpt_jax.generation.answers import consecutive_share
from tests.data.row_cases import picture, question


@pytest.mark.parametrize("counts", [[3, 1, 4, 1, 5, 9, 2, 6], [0, 2, 0, 0, 1, 0], [7], [], [1, 1, 20, 1]], ids=str)
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_shares(monkeypatch, counts, processes):
    pictures = [picture(f"{n}", *(question(f"{n}-{i}", [0]) for i in range(count))) for n, count in enumerate(counts)]
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    shares = []
    for index in range(processes):
        monkeypatch.setattr(jax, "process_index", lambda: index)
        shares.append([q.id for p in consecutive_share(pictures) for q in p.questions])
    assert [name for share in shares for name in share] == [q.id for p in pictures for q in p.questions]
    mean = sum(counts) / processes
    assert all(abs(len(share) - mean) <= max(counts, default=0) for share in shares)
