"""What the stand-alone plots have in common: an SVG picture with an axis in percent."""

from __future__ import annotations


def percent_axis(width: int, height: int, left: int, right: int, top: int, bottom: int) -> list[str]:
    """The first parts of a picture of width x height pixels: its opening tag, white ground, and lines with labels at every quarter.

    0 % lies at y = ``bottom``, 100 % at ``top``; the lines go from x = ``left`` to ``right``. The picture is whole once its parts are
    joined and closed with "</svg>".
    """
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        # Black letters need it on a dark page.
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for percent in range(0, 101, 25):
        y = bottom - (bottom - top) * percent / 100
        parts.append(
            f'<path d="M{left} {y}H{right}" stroke="#ddd"/><text x="{left - 4}" y="{y + 4}" text-anchor="end">{percent} %</text>'
        )
    return parts
