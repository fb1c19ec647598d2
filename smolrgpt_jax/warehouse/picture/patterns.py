"""Patterns of surfaces: fine floor texture, wall cladding, tape and labels on boxes, zone numbers."""

from __future__ import annotations

import functools

import numpy as np

TEXELS = 512
TEXEL = 0.02  # metres
LABEL = np.array([0.86, 0.85, 0.82], np.float32)  # of paper
TAPE = np.array([0.74, 0.60, 0.42], np.float32)
INK = np.array([0.16, 0.12, 0.09], np.float32)
# Strokes of the digits 1 to 3 on a plate that reaches from -1 to 1: (x0, y0, x1, y1).
DIGITS = {
    1: ((-0.1, -0.7, 0.1, 0.7),),
    2: (
        (-0.4, 0.5, 0.4, 0.7),
        (-0.4, -0.1, 0.4, 0.1),
        (-0.4, -0.7, 0.4, -0.5),
        (0.2, 0.0, 0.4, 0.6),
        (-0.4, -0.6, -0.2, 0.0),
    ),
    3: ((-0.4, 0.5, 0.4, 0.7), (-0.4, -0.1, 0.4, 0.1), (-0.4, -0.7, 0.4, -0.5), (0.2, -0.6, 0.4, 0.6)),
}


@functools.lru_cache(maxsize=8)
def grain(seed: int) -> np.ndarray:
    """A tile of noise whose amplitude falls with frequency, float32[TEXELS, TEXELS], mean 0, deviation 1."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(TEXELS)[:, None], np.fft.rfftfreq(TEXELS)[None, :]) * TEXELS
    spectrum = np.fft.rfft2(rng.normal(size=(TEXELS, TEXELS))) / (frequency + 3)
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(TEXELS, TEXELS))
    return (noise / noise.std()).astype(np.float32)


def floor_grain(seed: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The noise at floor points, float32[N]; it repeats every TEXELS * TEXEL metres."""
    column = (x * np.float32(1 / TEXEL)).astype(np.int32) & (TEXELS - 1)
    row = (y * np.float32(1 / TEXEL)).astype(np.int32) & (TEXELS - 1)
    return grain(seed % 8).ravel()[row * TEXELS + column]


def wall_tone(kind: str, along: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Tone of a wall's upper part.

    Args:
      kind: one of appearance.WALLS.
      along, high: float32[N], metres along the floor's edge (up to a constant) and above it.
    """
    if kind == "plaster":
        return np.ones_like(high)
    if kind == "panels":
        joint = (np.abs(np.mod(along, np.float32(2.4)) - 1.2) < 0.03) | (np.mod(high, np.float32(1.2)) < 0.04)
        return np.where(joint, np.float32(0.84), np.float32(1))
    if kind == "blocks":
        course = np.floor(high * np.float32(1 / 0.4))
        joint = (np.mod(high, np.float32(0.4)) < 0.025) | (
            np.mod(along + np.float32(0.4) * np.mod(course, 2), np.float32(0.8)) < 0.025
        )
        return np.where(joint, np.float32(0.86), np.float32(1))
    return 1 + np.float32(0.05) * np.sin(np.float32(9.0) * along)


def on_digit(number: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points of a plate (-1 to 1) lie on a stroke of its number, bool[N]."""
    found = np.zeros(x.shape, bool)
    for left, low, right, high in DIGITS[number]:
        found |= (x > left) & (x < right) & (y > low) & (y < high)
    return found


def print_marks(
    share: float, across: np.ndarray, up: np.ndarray, size: tuple[np.ndarray, np.ndarray], which: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is stuck and printed on cardboard faces.

    Args:
      share: of the faces that have anything on them.
      across, up: float32[N], metres from the middle of the face, or of its cell.
      size: width and height of the cell, float32[N] each.
      which: int32[N], a number of the cell, which decides what it has.

    Returns:
      bool[N] each: on tape, on a paper label, on printed ink.
    """
    code = (which * 1103515245 + 12345) >> 8
    printed = (code & 255) < 256 * share
    tape = (np.abs(across) < 0.03) & ((code & 512) > 0)
    side = np.where(code & 1024, np.float32(1), np.float32(-1))
    x, y = across * side - size[0] / 4, up - size[1] / 5
    label = (np.abs(x) < 0.07) & (np.abs(y) < 0.05) & ((code & 2048) > 0)
    x, y = across * side + size[0] / 4, up + size[1] / 6
    rows = np.mod(y, np.float32(0.05)) < 0.025
    ink = (np.abs(x) < np.minimum(0.12, size[0] / 6)) & (np.abs(y) < np.minimum(0.09, size[1] / 5)) & rows
    ink &= np.mod(x + np.float32(0.011) * which, np.float32(0.037)) < 0.026
    return printed & tape, printed & label & ~tape, printed & ink & ((code & 4096) > 0) & ~label
