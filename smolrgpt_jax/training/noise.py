"""The gradient noise scale: the batch from which on more rows bring little (McCandlish et al. 2018, An Empirical Model of Large-Batch
Training, appendix A.1).

The squared norm of a mean gradient over B rows is |G|^2 + tr(S) / B in expectation, G being the gradient over all data and S the
covariance over single rows. The parts of an accumulated step and their sum are two such B, which tell both; their ratio, tr(S) / |G|^2,
is the noise scale in rows. As both are noisy, and |G|^2 of one step may even be found negative, means over many steps are divided.
"""

import csv
from pathlib import Path

import jax

COLUMNS = SQUARE, NOISE = "gradient_square", "gradient_noise"  # of metrics.csv: |G|^2 and tr(S)


def gradient_noise(of_batch: jax.Array, of_part: jax.Array, parts: int, rows: int) -> dict[str, jax.Array]:
    """Estimates of |G|^2 and tr(S), without bias, of one step.

    of_batch: float32[], squared norm of the mean gradient of all rows; of_part: float32[], that of a part of `rows / parts` rows,
    averaged over the `parts`, at least two.
    """
    return {SQUARE: (parts * of_batch - of_part) / (parts - 1), NOISE: (of_part - of_batch) * (rows / (parts - 1))}


def noise_scale(metrics: Path) -> float | None:
    """The noise scale in rows, of the later half of the reports in a run's metrics.csv; infinity where noise is all that was seen.

    None where there are fewer than ten reports that tell it, as of runs that do not accumulate.
    """
    with open(metrics, newline="", encoding="utf-8") as file:
        found = [(float(row[SQUARE]), float(row[NOISE])) for row in csv.DictReader(file) if row.get(SQUARE)]
    if len(found) < 10:
        return None
    square, noise = (sum(column) for column in zip(*found[len(found) // 2 :]))
    return max(noise, 0.0) / square if square > 0 else float("inf")
