"""Curves as a picture: SVG, and PNG where the package for it is installed."""

from collections.abc import Sequence
from datetime import datetime
from html import escape
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from trellis.answers import Series
from trellis.cli.text import moment, safe, short
from trellis.errors import Field, Invalid

_WIDTH, _LEFT, _RIGHT, _TOP, _HEIGHT, _GAP = 1000, 90, 20, 34, 160, 62
_PNG = "resvg_py"
# Told apart by those who see few colours (Okabe and Ito, 2008).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_INK, _PALE = "#222222", "#dddddd"


def check_picture(option: str, path: Path, ending: str) -> None:
    """See whether a picture could be written, before anything is asked for. Raises Invalid that names the option."""
    if path.suffix.lower() != ending:
        raise Invalid(Field(option, f"must end in {ending}, not {path.name!r}"))
    if not path.parent.is_dir():
        raise Invalid(Field(option, f"{path.parent} is no folder"))
    if ending == ".png" and find_spec(_PNG) is None:
        raise Invalid(Field(option, "needs the package resvg-py: pip install 'trellis[draw]', or take --svg"))


def write_picture(path: Path, title: str, found: Sequence[Series]) -> None:
    """Write it in the form that its name ends in. Raises OSError."""
    svg = draw(title, found)
    if path.suffix.lower() == ".svg":
        path.write_text(svg)
    else:
        path.write_bytes(bytes(import_module(_PNG).svg_to_bytes(svg_string=svg)))


def draw(title: str, found: Sequence[Series]) -> str:
    """One chart a name, below each other, with a curve a replica; all over the same time. Raises ValueError for no points."""
    shown = [series for series in found if series.points]
    times = [point.at for series in shown for point in series.points if point.at is not None]
    first, last = min(times), max(times)
    names = list(dict.fromkeys(series.name for series in shown))
    body = [_text(_LEFT, 22, title, size=16)]
    for place, name in enumerate(names):
        top = _TOP + 26 + place * (_HEIGHT + _GAP)
        body += _chart([series for series in shown if series.name == name], top, first, last)
    tall = _TOP + len(names) * (_HEIGHT + _GAP) + 10
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{tall}" viewBox="0 0 {_WIDTH} {tall}">'
    style = '<style>text{font-family:"DejaVu Sans",Arial,sans-serif}</style>'
    return "\n".join([head, style, f'<rect width="{_WIDTH}" height="{tall}" fill="white"/>', *body, "</svg>"])


def _chart(curves: Sequence[Series], top: float, first: datetime, last: datetime) -> list[str]:
    values = [point.value for series in curves for point in series.points]
    low, high = min(values), max(values)
    said = f"{curves[0].name}, {curves[0].agg} of every {curves[0].resolution_s} s"
    marks = [_text(_LEFT, top - 8, said, size=12)]
    for part in (0.0, 0.5, 1.0):
        y = top + _HEIGHT * (1 - part)
        marks.append(f'<path d="M{_LEFT},{y}H{_WIDTH - _RIGHT}" stroke="{_PALE}"/>')
        # Halves first: the difference of two large numbers may be larger than any number.
        marks.append(_text(_LEFT - 6, y + 4, short(low * (1 - part) + high * part), anchor="end"))
    marks.append(_text(_LEFT, top + _HEIGHT + 16, moment(first)))
    marks.append(_text(_WIDTH - _RIGHT, top + _HEIGHT + 16, moment(last), anchor="end"))
    span_s = max((last - first).total_seconds(), 1e-9)
    for number, series in enumerate(curves):
        places = [
            (_LEFT + (_WIDTH - _LEFT - _RIGHT) * ((point.at - first).total_seconds() / span_s), _part(point.value, low, high))
            for point in series.points
            if point.at is not None
        ]  # fmt: skip
        colour = _COLOURS[number % len(_COLOURS)]
        marks.append(_curve(places, top, colour))
        if series.replica is not None:
            marks.append(_text(_WIDTH - _RIGHT - 26 * number, top - 8, str(series.replica), "end", colour=colour))
    return marks


def _part(value: float, low: float, high: float) -> float:
    """How far from the least to the most; in the middle where all are equal."""
    return 0.5 if high == low else (value / 2 - low / 2) / (high / 2 - low / 2)


def _curve(places: Sequence[tuple[float, float]], top: float, colour: str) -> str:
    steps = [f"{x:.1f},{top + _HEIGHT * (1 - part):.1f}" for x, part in places]
    if len(steps) == 1:
        x, y = steps[0].split(",")
        return f'<circle cx="{x}" cy="{y}" r="2" fill="{colour}"/>'
    return f'<polyline points="{" ".join(steps)}" fill="none" stroke="{colour}" stroke-width="1.3"/>'


def _text(x: float, y: float, words: str, anchor: str = "start", *, size: int = 11, colour: str = _INK) -> str:
    told = escape(safe(words))
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{told}</text>'
