"""A tokenizer as texts, so that a checkpoint can carry it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from smolrgpt_jax.data.chat import ChatTokenizer


def tokenizer_files(tokenizer: ChatTokenizer) -> dict[str, str]:
    """{file name: text} of the folder that `ChatTokenizer.save` writes."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "tokenizer"
        tokenizer.save(folder)
        return {file.name: file.read_text(encoding="utf-8") for file in sorted(folder.iterdir())}


def tokenizer_from_files(files: Mapping[str, str]) -> ChatTokenizer:
    """The inverse of `tokenizer_files`; raises DataError for files that hold no tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / Path(name).name).write_text(text, encoding="utf-8")
        return ChatTokenizer.load(folder)
