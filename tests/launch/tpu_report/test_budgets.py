"""Programs of the published widths, few layers and small pictures stay as fast and as small, by the compiler's clock, as they were made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import libtpu

pytestmark = libtpu.needed
ROOT = Path(__file__).parents[3]
BUDGETS = Path(__file__).with_name("budgets.json")
ROOM = 1.03
LEAST = 0.9  # of a budget: what takes less has become so much better that a new one is due, or is no longer counted
# Prints what each program takes, as JSON.
PROGRAM = """
import dataclasses, json
from configs import stage3_sft
from launch.tpu_report.compiling import compile_run
from smolrgpt_jax.config import PRESETS

whole = PRESETS["smolrgpt"]
PRESETS["few_layers"] = whole.replace(
    vision=dataclasses.replace(whole.vision, layers=2, image_size=128),
    decoder=dataclasses.replace(whole.decoder, layers=8, vocab_size=8000),
)
found = {}
for name, what in (("stage3", "train"), ("decode", "decode")):
    run = stage3_sft.get_config().to_dict()
    run["model"]["preset"], run["batch_rows"] = "few_layers", 4
    run["data"] |= {"row_tokens": 256, "row_pictures": 1, "row_regions": 8}
    report = compile_run(run, "v5e:2x2", what=what, new_tokens=16)
    found[name] = {
        "cycles": report["clock"]["cycles"],
        "bytes_per_chip": report["memory"]["total"],
        "collective_bytes": sum(c["bytes_per_step"] for c in report["collectives"]),
        "loops": len(report["loops"]),
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, int]]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=libtpu.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("program", ["stage3", "decode"])
def test_no_program_passes_its_budget(found, program):
    """A change that is worth more than 3 % says so in budgets.json: `found` is what to write there."""
    budget = json.loads(BUDGETS.read_text())[program]
    assert budget.keys() == found[program].keys()
    off = {
        name: f"{found[program][name]:,} where {most:,} is the budget"
        for name, most in budget.items()
        if not LEAST * most <= found[program][name] <= ROOM * most
    }
    assert not off, f"{program}: {off}; all of it: {found[program]}"
