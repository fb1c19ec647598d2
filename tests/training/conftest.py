"""A model and a mesh as small as can be, for the tests of whole runs."""

from __future__ import annotations

import jax
import pytest


@pytest.fixture(scope="module")
def one_device():
    """Runs take the first device alone: how work is spread over several is not what the module tests."""
    with pytest.MonkeyPatch.context() as patch:
        devices = jax.devices()[:1]
        patch.setattr(jax, "devices", lambda *_: devices)
        yield
