"""How sure a score is: bootstrap intervals and the paired test of two runs.

Questions about one picture are answered from the same features and tend to be right or wrong together, so that they are
not independent. The bootstrap therefore draws whole pictures with replacement, each with all its questions (the cluster
bootstrap: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8), and its intervals are wider
than those that count every question as an own observation. What it cannot tell: an accuracy of 0 or 100 % is the same
in every resample, so that its interval has no width, and a handful of pictures gives too narrow ones.
"""

from collections.abc import Hashable, Sequence

import numpy as np

RESAMPLES = 5000
SEED = 0
LEVEL = 0.95
_TAILS = (50 * (1 - LEVEL), 100 - 50 * (1 - LEVEL))  # percent
_CELLS = 4_000_000  # of the matrix of draws held at once, 32 MB


def bootstrap(
    clusters: Sequence[Hashable], values: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED
) -> np.ndarray:
    """Draws clusters with replacement and adds up the values of what was drawn; the same seed gives the same resamples.

    clusters: of each observation, at least one; values: float64[N, K]. Returns float64[resamples, K].
    """
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros((len(numbers), values.shape[1]))
    np.add.at(sums, [numbers[cluster] for cluster in clusters], values)
    rng = np.random.default_rng(seed)
    equal = np.full(len(numbers), 1 / len(numbers))
    chunk = max(1, _CELLS // len(numbers))
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    return np.concatenate([rng.multinomial(len(numbers), equal, size=size) @ sums for size in sizes])


def category_intervals(
    clusters: Sequence[Hashable], categories: Sequence[str], values: Sequence[float], names: Sequence[str]
) -> dict[str, list[float] | None]:
    """Percentile intervals of each category's mean value in percent, and of "mean", the mean of these.

    A category's value is the sum over its questions by their number, both as drawn; the mean is over the categories that
    a resample holds.

    Args:
      clusters, categories: one per question: its picture and its category.
      values: one per question: 1 or 0 for right or wrong; to compare two runs, the difference of the two.
      names: the categories to report; None without questions.
    """
    members = np.array([[float(category == name) for name in names] for category in categories])
    sums = bootstrap(clusters, np.concatenate([members * np.asarray(values, float)[:, None], members], axis=1))
    right, drawn = np.split(sums, 2, axis=1)
    each = 100 * _ratio(right, drawn)
    mean = _ratio(np.nan_to_num(each).sum(1), (drawn != 0).sum(1))
    found: dict[str, list[float] | None] = {}
    for name, column in zip((*names, "mean"), (*each.T, mean)):
        present = column[~np.isnan(column)]
        found[name] = np.percentile(present, _TAILS).tolist() if present.size else None
    return found


def _ratio(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """parts / wholes, NaN where there is no whole."""
    return np.divide(parts, wholes, out=np.full(parts.shape, np.nan), where=wholes != 0)


def student_intervals(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means over runs that differ by their seed, and the ends of their 95 % intervals (Student's t).

    values: float[..., runs], at least two runs. Returns three float[...].
    """
    from scipy import stats

    runs = values.shape[-1]
    mean = values.mean(axis=-1)
    half = stats.t.ppf((1 + LEVEL) / 2, runs - 1) * values.std(axis=-1, ddof=1) / np.sqrt(runs)
    return mean, mean - half, mean + half


def describe_bootstrap(clusters: Sequence[Hashable], unit: str = "picture") -> dict:
    """What metrics.json says about its intervals."""
    reason = "questions about one picture are not independent, so whole pictures are drawn"
    if unit != "picture":
        reason = "the questions name no pictures, so they are drawn one by one"
    limits = "at 0 or 100 % the interval has no width whatever the number of questions, "
    limits += "and fewer than about 30 clusters make it too narrow"
    made = {"method": f"percentile bootstrap, clustered by {unit}", "reason": reason, "limits": limits}
    return made | {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED, "clusters": len(set(clusters))}


def describe_interval(interval: Sequence[float] | None, form: str = ".2f") -> str:
    """An interval for people, "-" for None."""
    return "-" if interval is None else " to ".join(format(end, form) for end in interval)


def cell(value: float | None, form: str = ".2f") -> str:
    """A value for people, "-" for None."""
    return "-" if value is None else format(value, form)


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact McNemar test: the two-sided p-value that two runs are equally often right.

    Under the null hypothesis a question that exactly one run answers rightly is as likely the first's as the second's,
    so their number is binomial with 1/2 (McNemar, Psychometrika 12, 1947). It takes questions as independent.
    """
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
