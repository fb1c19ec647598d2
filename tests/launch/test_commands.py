"""Command lines: help, and one sentence on bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "module",
    [
        "launch.demo",
        "launch.make_warehouse",
        "launch.train_tokenizer",
        "launch.warehouse_gallery",
        "convert",
        "eval.warehouse",
        "eval.predict",
        "eval.score_warehouse",
    ],
)
def test_help(module):
    done = run(module, "--help")
    assert done.returncode == 0 and "usage" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("launch.train", "--config=configs/stage3_sft.py", "--config.init_from=nowhere", "--workdir=out"),
            "nowhere holds no checkpoint",
        ),
        (
            ("launch.train", "--config=configs/stage3_sft.py", "--workdir=out"),
            "config.tokenizer names no tokenizer",
        ),
        (("launch.make_warehouse", "--out=out", "--width=5000"), "5000x1080 pixels are outside"),
        (
            ("launch.make_warehouse", "--out=out", "--appearance_variety=2"),
            "appearance_variety is 2.0, must be",
        ),
        (
            ("launch.make_warehouse", "--out=out", "--bench", "--test_scenes=0"),
            "bench is made of the test split",
        ),
        (("launch.warehouse_gallery", "--data=nowhere", "--out=out"), "train.json: cannot be read"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, tmp_path):
    arguments = [
        a.replace("=out", f"={tmp_path / 'out'}").replace("=nowhere", f"={tmp_path / 'nowhere'}")
        for a in arguments
    ]
    done = run(*arguments)
    assert done.returncode != 0
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
