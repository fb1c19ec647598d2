"""The commands keep finished answers beside --out until their results are written."""

from __future__ import annotations

import pytest

from eval import spatialrgpt_bench
from eval import warehouse as warehouse_command
from eval.answering.asking import journal_path


@pytest.fixture(params=["warehouse", "bench"])
def command(request, loaded_model):
    if request.param == "warehouse":
        return warehouse_command, request.getfixturevalue("warehouse")
    return spatialrgpt_bench, request.getfixturevalue("bench_folder")


def test_the_journal_lives_until_the_results_are_written(command, tmp_path, monkeypatch):
    module, data = command
    out = tmp_path / "results" / "run"
    journal = tmp_path / "results" / ".run.journal"
    fail = True

    def answer(model, pictures, options, out):
        path = journal_path(out)
        assert path == tmp_path / "results" / ".run.journal"
        path.parent.mkdir(exist_ok=True)
        path.write_text("kept")
        path.with_name(f"{path.name}.1").write_text("another process's")
        if fail:
            raise OSError("the disk is full")
        return ["It is left." for picture in pictures for _ in picture.questions]

    monkeypatch.setattr(module.asking, "answer_questions", answer)
    arguments = ["--checkpoint", "anywhere", "--data", str(data), "--out", str(out), "--dtype", "bfloat16"]
    with pytest.raises(SystemExit, match="error: the disk is full"):
        module.main(arguments)
    assert journal.read_text() == "kept" and not out.exists()
    fail = False
    module.main(arguments)
    assert [file.name for file in (tmp_path / "results").iterdir()] == ["run"]
    assert (out / "metrics.json").exists()
