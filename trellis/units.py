"""Amounts as people write them, turned into integers in base units; nothing else may parse them.

Bytes, milli-CPUs, milli-GPUs and whole seconds; never negative, never NaN, never beyond 2^53 - 1, so that
every JSON reader on earth holds them exactly.
"""

import re
from collections.abc import Callable

LARGEST = 2**53 - 1
_BYTES = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15,
          "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40, "pi": 2**50}  # fmt: skip
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AMOUNT = re.compile(r"\s*(\d{1,18})(?:\.(\d{1,9}))?\s*([A-Za-z]*)\s*", re.ASCII)
_CLOCK = re.compile(r"\s*(?:(\d{1,5})-)?(\d{1,5})(?::(\d{1,2}))?(?::(\d{1,2}))?\s*", re.ASCII)


def parse_bytes(text: str | int) -> int:
    """`"80GB"`, `"1.5GiB"`, `512` as bytes. Raises ValueError with the way out."""
    return _parse(text, _byte_factor, "bytes such as 512MiB or 80GB")


def parse_milli(text: str | int | float) -> int:
    """`2`, `"0.5"`, `"500m"` as thousandths. Raises ValueError with the way out."""
    if isinstance(text, float):
        text = repr(text)
    elif isinstance(text, int) and not isinstance(text, bool):
        text = str(text)
    return _parse(text, {"": 1000, "m": 1}.get, "a number such as 2, 0.5 or 500m")


def parse_usd(text: str | int | float) -> int:
    """`12.5`, `"0.40"` US dollars as millionths of one. Raises ValueError with the way out."""
    if isinstance(text, float):
        text = repr(text)
    return _parse(text, {"": 1_000_000}.get, "an amount of US dollars such as 12.5")


def parse_seconds(text: str | int) -> int:
    """`90`, `"90s"`, `"2h"`, `"1d"`, and Slurm's `"1-12:30:00"`, `"30:00"` as seconds. Raises ValueError."""
    if isinstance(text, str) and (":" in text or "-" in text.strip()[1:]):
        return _parse_clock(text)
    return _parse(text, lambda unit: _SECONDS.get(unit.lower()), "a duration such as 90s, 2h or 1-12:00:00")


def format_bytes(amount: int) -> str:
    """Bytes for people: `1.5 GiB`."""
    size = float(amount)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")


def format_seconds(amount: float) -> str:
    """Seconds for people: `0.42 s`, `3 m 05 s`, `2 h 10 m`."""
    if amount < 10:
        return f"{amount:.2f} s"
    if amount < 60:
        return f"{amount:.0f} s"
    minutes, seconds = divmod(round(amount), 60)
    if minutes < 60:
        return f"{minutes} m {seconds:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} m"


def _byte_factor(unit: str) -> int | None:
    folded = unit.lower()
    return _BYTES.get(folded, _BYTES.get(folded.removesuffix("b")))


def _parse(text: object, factor_of: Callable[[str], int | None], wanted: str) -> int:
    if isinstance(text, bool) or not isinstance(text, int | str):
        raise ValueError(f"must be {wanted}")
    match = _AMOUNT.fullmatch(str(text))
    factor = factor_of(match[3]) if match else None
    if match is None or factor is None:
        raise ValueError(f"must be {wanted}")
    # Integers all the way: a tenth of a GPU ten times must be one GPU.
    fraction = match[2] or ""
    denominator: int = 10 ** len(fraction)
    scaled, rest = divmod(int(match[1] + fraction) * factor, denominator)
    if rest:
        raise ValueError("is finer than the smallest unit")
    if scaled > LARGEST:
        raise ValueError(f"is too large: at most {LARGEST}")
    return scaled


def _parse_clock(text: str) -> int:
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise ValueError("must be a duration such as 90s, 2h or 1-12:00:00")
    days, first, second, third = (int(part) if part is not None else None for part in match.groups())
    if days is not None:  # D-H[:M[:S]]
        return days * 86400 + (first or 0) * 3600 + (second or 0) * 60 + (third or 0)
    if third is not None:  # H:M:S
        return (first or 0) * 3600 + (second or 0) * 60 + third
    return (first or 0) * 60 + (second or 0)  # M:S
