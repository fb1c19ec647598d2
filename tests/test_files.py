"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import json

from smolrgpt_jax import files


def test_pictures_are_copied_where_there_are_no_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no hard links here")

    monkeypatch.setattr(files.os, "link", refuse)
    (tmp_path / "a").write_bytes(b"picture")
    files.link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"picture"


def test_a_list_has_a_line_for_every_record(tmp_path):
    for records in ([], [{"a": 1}], [{"a": 1}, {"b": [2]}]):
        files.write_list(tmp_path / "list.json", iter(records))
        text = (tmp_path / "list.json").read_text()
        assert json.loads(text) == records and len(text.splitlines()) == len(records) + 2
