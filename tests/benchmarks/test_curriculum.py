"""What a stage of the curriculum costs, from the time of its compiled step."""

from __future__ import annotations

import importlib.util
import json
import subprocess

import pytest

from benchmarks import curriculum, tpu_compile


def test_the_steps_are_the_published_ones():
    assert [stage.steps_on(8) for stage in curriculum.STAGES.values()] == [48375, 4788, 17825]
    third = curriculum.STAGES["3, supervised fine-tuning"]
    assert [third.rows_on(chips) for chips in (4, 8, 16, 64)] == [16, 16, 16, 64]
    assert curriculum.STAGES["1, connector alignment"].rows_on(16) == 64


def test_where_chips_outnumber_rows_the_batch_grows_and_the_samples_stay_as_many():
    third = curriculum.STAGES["3, supervised fine-tuning"]
    assert [third.batch_on(chips) for chips in (4, 16, 64, 256)] == [112, 112, 448, 1792]
    assert [third.steps_on(chips) for chips in (4, 16, 64, 256)] == [17825, 17825, 4457, 1115]
    assert curriculum.STAGES["1, connector alignment"].batch_on(64) == 256


def test_hours_are_steps_times_seconds_and_a_program_that_does_not_compile_is_told(monkeypatch, tmp_path, capsys):
    asked = []

    def compile_into(file, config, topology, rows, row_tokens):
        asked.append((config, rows, row_tokens))
        memory = {"total": 2 * 2**30, "chip_hbm": 16 * 2**30}
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(json.dumps({"rows": rows, "memory": memory, "clock": {"seconds": 0.1}}))
        return topology == "v5e:2x4"

    monkeypatch.setattr(curriculum, "compile_into", compile_into)
    with pytest.raises(SystemExit, match="did not compile: v5e:2x2 stage 1"):
        curriculum.main(["--out", str(tmp_path), "--only", "v5e:2x4", "v5e:2x2"])
    said = capsys.readouterr().out
    assert asked[0] == ("configs/stage1_connector.py", 64, 512)
    assert "| v5e:2x4 | 3, supervised fine-tuning | 112 | 2 | 2.00 of 16 | 100 | 17,825 | 0.50 | 4.0 |" in said
    assert "| v5e:2x4 | **all** | | | | | | **1.97** | **15.8** |" in said
    assert "v5e:2x2 |" not in said
    assert "nothing was run" in (tmp_path / "curriculum.md").read_text()


@pytest.mark.parametrize("benchmark", [curriculum, tpu_compile])
def test_without_libtpu_one_sentence_says_what_to_install_and_no_table_is_replaced(monkeypatch, tmp_path, benchmark):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "libtpu" else find(name))
    # What the commands would end with, did they run.
    monkeypatch.setattr(tpu_compile.subprocess, "run", lambda command: subprocess.CompletedProcess(command, 1))
    table = tmp_path / f"{benchmark.__name__.partition('.')[2]}.md"
    table.write_text("before")
    with pytest.raises(SystemExit, match=r"^error: compiling for TPUs needs libtpu.*pip install 'jax\[tpu\]'$"):
        benchmark.main(["--out", str(tmp_path)])
    assert table.read_text() == "before"


def test_a_table_stays_where_nothing_compiled(monkeypatch, tmp_path):
    monkeypatch.setattr(curriculum, "compile_into", lambda *given: False)
    (tmp_path / "curriculum.md").write_text("before")
    with pytest.raises(SystemExit, match="did not compile"):
        curriculum.main(["--out", str(tmp_path), "--only", "v5e:2x2"])
    assert (tmp_path / "curriculum.md").read_text() == "before"
