"""Stand-alone plots of scores in percent, as SVG files, by matplotlib."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smolrgpt_jax.errors import RunError

COLOURS = tuple(
    "#3465a4 #c17d11 #4e9a06 #a40000 #75507b #555753 #729fcf #fcaf3e #8ae234 #ef2929 #ad7fa8 #babdb6 #edd400 #06989a".split()
)


def require() -> None:
    """Raises RunError where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise RunError("plots need matplotlib, install it with: pip install -e '.[plots]'") from None


@contextmanager
def percent_plot(path: Path, size: tuple[float, float] = (8, 4)) -> Iterator[Any]:
    """Matplotlib's axes from 0 to 100 % to draw into; the legend is added and the file written at the end.

    size: width and height in inches; at the width of a phone, 390 pixels, 4 are shown in their own size. Raises RunError where
    matplotlib is not installed.
    """
    require()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "smolrgpt_jax", "font.size": 9}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.set(ylim=(0, 100), yticks=range(0, 101, 25), axisbelow=True)
        axes.yaxis.set_major_formatter("{x:.0f} %")
        axes.grid(axis="y", color="#ddd")
        axes.spines[["top", "right", "left"]].set_visible(False)
        yield axes
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})
