"""The start benchmark's data is whole, and its runs read the same rows whether something was kept or not."""

from __future__ import annotations

from benchmarks import start
from smolrgpt_jax.data.prepared.reader import load_stored, read_prepared


def test_runs_start_on_repeated_pictures(tmp_path, monkeypatch):
    root = start.make_prepared(tmp_path, 8, scenes=3)
    pictures = read_prepared(root, "train")
    assert [picture.number for picture in pictures] == list(range(9))
    assert (load_stored(pictures[8]).image == load_stored(pictures[2]).image).all()
    said = [{text for picture in pictures[i : i + 3] for q in picture.questions for text in q.turns} for i in (3, 6)]
    assert said[0] - said[1] and said[0] & said[1]
    monkeypatch.setattr(start.gc, "set_threshold", lambda _: None)
    first, again = (start.start_run(root, 0.0) for _ in range(2))
    assert first[1] == again[1] and first[1]["training pictures"] == 9
    assert len(list((root / "kept").iterdir())) == 2
    assert min(first[0] + again[0]) > 0
