"""The table of several ways to compile one run; the compiler is stubbed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from configs import default
from launch.tpu_report import tuning
from launch.tpu_report.compiling import DoesNotFit
from smolrgpt_jax.errors import RunError

ROOT = Path(__file__).parents[3]


def test_the_fastest_per_row_comes_first_and_what_failed_last(monkeypatch, capsys):
    def compiled(run, topology, slices):
        if run["strategy"] == "data":
            raise DoesNotFit("a step of 64 rows needs more memory than a chip has")
        milliseconds = (
            {"auto": 100, "full": 100, "dots": 90, "none": 120}[run["model"]["remat"]] * run["batch_rows"] / 64
        )
        milliseconds += 5 if run["strategy"] == "fsdp" else 0
        clock = {"seconds": milliseconds / 1e3, "cycles": milliseconds * 1.5e6, "mfu": 40 / milliseconds}
        return {"clock": clock, "rows": run["batch_rows"], "memory": {"total": 2**32}}

    monkeypatch.setattr(tuning, "compile_run", compiled)
    run = default.get_config().to_dict()
    assert (run["batch_rows"], run["model"]["remat"], run["strategy"]) == (64, "auto", "zero1")
    lines = tuning.tune(run, "v5e:4x4", 1).splitlines()
    assert [line[:20].strip() for line in lines[1:-1]] == ["remat dots", "as given", "strategy fsdp", "remat none"]
    assert lines[1].split()[2:] == ["1406.2", "90.0", "135.0", "4.00", "44.4%"]
    assert lines[-1] == "strategy data: a step of 64 rows needs more memory than a chip has"
    assert "as given" in capsys.readouterr().out
    assert run == default.get_config().to_dict()


def test_where_nothing_compiles_that_is_an_error(monkeypatch):
    def refuse(*_):
        raise RunError("the mesh does not fit 4 devices")

    monkeypatch.setattr(tuning, "compile_run", refuse)
    with pytest.raises(RunError, match=r"none of \d+ ways compiles; as given: the mesh does not fit 4 devices"):
        tuning.tune(default.get_config().to_dict(), "v5e:2x2", 1)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--tune", "--hlo=text.hlo"], "has no use for --hlo"),
        (["--tune", "--what=decode"], "has no use for --what"),
        (["--tune", "--out=report.json"], "has no use for --out"),
        (["--new_tokens=8"], "--new_tokens are those of --what=decode"),
        (["--start=4"], "--start is where --find_batch begins"),
        (["--out=text.hlo", "--hlo=text.hlo"], "--out and --hlo name the same file"),
        (["--find_batch", "--hlo=text.hlo"], "--find_batch compiles several programs, --hlo writes the text of one"),
    ],
)
def test_options_without_a_use_are_told_before_anything_is_compiled(more, said):
    command = [
        sys.executable,
        "-m",
        "launch.compile_for_tpu",
        "--config",
        "configs/stage3_sft.py",
        "--topology",
        "v5e:2x2",
    ]
    done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and said in done.stderr
    assert "compiling" not in done.stdout
