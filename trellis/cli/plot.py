"""Curves in a terminal, of dots of Braille: two across and four down in each character."""

from collections.abc import Sequence

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BLANK = 0x2800


def curve(values: Sequence[float | None], width: int, height: int) -> list[str]:
    """Lines of text, the highest first, that show `values` from left to right; None is a gap. Raises ValueError for none.

    `width` and `height` are in characters. Where there are more values than dots across, each dot shows their mean.
    """
    columns = _spread(values, width * 2)
    known = [value for value in columns if value is not None]
    low, high = min(known), max(known)
    levels = height * 4 - 1
    cells = [[_BLANK] * width for _ in range(height)]
    previous: int | None = None
    for x, value in enumerate(columns):
        if value is None:
            previous = None
            continue
        level = levels // 2 if high == low else round((value - low) / (high - low) * levels)
        # Down to the level before, so that a steep curve stays one line.
        for y in range(min(level, level if previous is None else previous), max(level, previous or level) + 1):
            row, dot = divmod(levels - y, 4)
            cells[row][x // 2] |= _DOTS[x % 2][dot]
        previous = level
    return ["".join(map(chr, row)) for row in cells]


def _spread(values: Sequence[float | None], count: int) -> list[float | None]:
    """As many values as there are columns: means of neighbours where there are more, repeated where there are fewer."""
    made: list[float | None] = []
    for x in range(count):
        first = x * len(values) // count
        part = values[first : max(first + 1, (x + 1) * len(values) // count)]
        known = [value for value in part if value is not None]
        made.append(sum(known) / len(known) if known else None)
    return made
