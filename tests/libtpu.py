"""The compiler for TPUs in tests: libtpu as installed, or in the folder that LIBTPU_FOLDER names (`make test-slow`).

Kept out of the environment of the other tests, since JAX looks for TPUs wherever it finds it.
"""

from __future__ import annotations

import importlib.util
import os

import pytest

FOLDER = os.environ.get("LIBTPU_FOLDER")
needed = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not FOLDER and importlib.util.find_spec("libtpu") is None, reason="needs libtpu, as `make test-slow` brings it"
    ),
]


def environment() -> dict[str, str]:
    """Of a process that compiles for TPUs as users do: without the flags that make the tests' programs quick to compile."""
    kept = {n: v for n, v in os.environ.items() if n not in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")}
    return kept | ({"PYTHONPATH": FOLDER} if FOLDER else {})
