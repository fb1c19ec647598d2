"""Everything that the pages tell people to type, pasted in order into a fresh clone."""

import os
import re
import signal
import subprocess
import sysconfig
import threading
import venv
from pathlib import Path

import pytest

from tests.devices import xla_flags
from tests.pages import PASTED, ROOT, Block, blocks, pages

LONGEST = 1200  # seconds a block may take on a machine that does much else


@pytest.fixture
def clone(tmp_path) -> Path:
    """A clone of what is checked out and changed here, with what `make` would have installed, so that only a robot waits for pip."""
    clone = tmp_path / "smolrgpt_jax"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    changed = subprocess.run(["git", "diff", "HEAD", "--binary"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["git", "apply", "--allow-empty"], input=changed, cwd=clone, check=True)
    venv.create(clone / ".venv", symlinks=True)
    packages = clone / f".venv/lib/python{sysconfig.get_python_version()}/site-packages"
    (packages / "installed.pth").write_text(f"{clone}\n{sysconfig.get_path('purelib')}\n")
    command = clone / ".venv/bin/smolrgpt"
    command.write_text(
        f"#!{clone}/.venv/bin/python\nfrom launch.cli import main\n\nif __name__ == '__main__':\n    main()\n"
    )
    command.chmod(0o755)
    for stamp in ("installed", "installed-test"):
        (clone / ".venv" / stamp).touch()
    return clone


def paste(block: Block, clone: Path, environment: dict[str, str]) -> None:
    """Runs a block; fails unless it ends as it should and prints what the page shows."""
    program = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else ["python", "-c"]
    where = f"{block.page}:{block.line}\n{block.script()}\n"
    process = subprocess.Popen(
        [*program, block.script()],
        cwd=clone,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Tests that run in the background may have been told to ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    printed, until = "", block.mark("pasted until: ")
    limit = threading.Timer(LONGEST, os.killpg, (process.pid, signal.SIGKILL))
    limit.start()
    try:
        for line in process.stdout:
            printed += line
            if until and until in line:
                os.killpg(process.pid, signal.SIGINT)
        process.wait()
    finally:
        limit.cancel()
    # A server that is stopped while it starts ends as an interrupted command does.
    statuses = (0, 1) if until else (1,) if "pasted to fail" in block.marks else (0,)
    assert process.returncode in statuses and (until or "") in printed, (
        f"{where}status {process.returncode}:\n{printed}"
    )
    assert "Traceback" not in printed, f"{where}{printed}"
    found = comparable(printed.replace(str(clone), "REPOSITORY").replace(str(Path.home()), "HOME"))
    missing = [line for line in comparable(block.printed or "") if line not in found]
    assert not missing, f"{where}does not print {missing} but\n{printed}"


def comparable(text: str) -> list[str]:
    """The lines of a text without what differs between machines: tiny differences, and spaces that align them."""
    return [" ".join(re.sub(r"\d+(\.\d+)?e-\d+", "~", line).split()) for line in text.splitlines()]


def environment(clone: Path, compiled: Path) -> dict[str, str]:
    """The variables that a block runs with: the clone's commands come first, and most of the time goes into compiling."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "TMPDIR")}
    return kept | {
        "PATH": f"{clone}/.venv/bin:{os.environ['PATH']}",
        "XLA_FLAGS": xla_flags(),
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.mark.slow
def test_every_block_of_the_pages_runs_in_order_in_a_fresh_clone(clone, tmp_path):
    for page in pages():
        for block in blocks(page):
            if block.language in PASTED and not block.mark("not pasted: "):
                paste(block, clone, environment(clone, tmp_path / "compiled"))
