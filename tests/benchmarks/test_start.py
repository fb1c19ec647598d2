"""The start benchmark's data is whole, and a run goes to its first step."""

from __future__ import annotations

import dataclasses

import jax

from benchmarks import start
from benchmarks.convert import make_checkpoint
from benchmarks.shared import SIZES
from smolrgpt_jax.data.prepared.reader import load_stored, read_prepared


def test_runs_start_on_repeated_pictures(tmp_path, monkeypatch):
    tiny = SIZES["tiny"]
    decoder, vision = (
        dataclasses.replace(tiny.decoder, vocab_size=640, layers=1),
        dataclasses.replace(tiny.vision, layers=1),
    )
    config = dataclasses.replace(tiny, decoder=decoder, vision=vision)
    root = start.make_prepared(tmp_path, 8, 3, (config.vision.image_size, config.mask_grid))
    pictures = read_prepared(root, "train")
    assert [picture.number for picture in pictures] == list(range(9))
    assert (load_stored(pictures[8]).image == load_stored(pictures[2]).image).all()
    said = [{text for picture in pictures[i : i + 3] for q in picture.questions for text in q.turns} for i in (3, 6)]
    assert said[0] - said[1] and said[0] & said[1]
    monkeypatch.setattr(start.gc, "set_threshold", lambda _: None)
    make_checkpoint(tmp_path / "model", config, 0)
    device = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *_: device)
    assert min(start.start_run(root, tmp_path / "model", 0.0, rows=1)) > 0
    assert len(list((root / "kept").iterdir())) == 4  # tokens, plan, what the questions say, their digest
