"""Options whose text holds more than one thing."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from trellis.errors import Field, Invalid
from trellis.terms import read_term
from trellis.units import parse_seconds


def pairs(option: str, given: Iterable[str] | None) -> dict[str, str]:
    """`K=V` words as a mapping. Raises Invalid."""
    found = {}
    for word in given or ():
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise Invalid(Field(f"--{option}", f"must be K=V, not {word!r}"))
        found[key] = value
    return found


def dependencies(given: Iterable[str] | None) -> list[dict[str, str]]:
    """`ID`, `failure:ID` and `any:ID` words as dependencies. Raises Invalid."""
    found = []
    for word in given or ():
        kind, colon, job = word.rpartition(":")
        if not job or (colon and kind not in ("success", "failure", "any")):
            raise Invalid(Field("--after", f"must be ID, failure:ID or any:ID, not {word!r}"))
        found.append({"job": job, "kind": f"after_{kind or 'success'}"})
    return found


def when(option: str, text: str | None) -> datetime | None:
    """A date, or a date and time, of this machine's zone where it names none. Raises Invalid."""
    try:
        return None if text is None else datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise Invalid(Field(f"--{option}", f"must be such as 2026-01-31T12:00, not {text!r}")) from error


def terms(option: str, given: Iterable[str] | None) -> list[dict[str, Any]]:
    """`disk`, `!disk`, `zone=north,south` and the like as conditions on labels. Raises Invalid."""
    try:
        return [read_term(word) for word in given or ()]
    except ValueError as error:
        raise Invalid(Field(f"--{option}", str(error))) from error


def one_or_many(text: str | None) -> str | list[str] | None:
    """`H100` as it stands, `H100,A100` as a list."""
    return text.split(",") if text and "," in text else text


def counted(text: str | None) -> dict[str, int]:
    """`4` as so many replicas, `2-8` as from so many to so many. Raises Invalid."""
    if text is None:
        return {}
    fewest, dash, most = text.partition("-")
    if not (fewest.isdigit() and fewest.isascii() and (not dash or (most.isdigit() and most.isascii()))):
        raise Invalid(Field("--replicas", f"must be such as 4, or 2-8, not {text!r}"))
    return {"min_replicas": int(fewest), "max_replicas": int(most)} if dash else {"replicas": int(fewest)}


def topology(within: str | None, near: str | None) -> dict[str, Any] | None:
    """The level in one domain of which all shall be. Raises Invalid where two are named."""
    if within and near:
        raise Invalid(Field("--near", "is the same as --within, where it can be: give one of them"))
    if within:
        return {"level": within, "required": True}
    return {"level": near} if near else None


def checkpoints(wanted: bool, every: str | None) -> dict[str, Any] | None:
    """`--checkpoint` and `--checkpoint-every` as the body has them; None where neither was given."""
    try:
        return {"every": parse_seconds(every or "10m")} if wanted or every is not None else None
    except ValueError as error:
        raise Invalid(Field("--checkpoint-every", str(error))) from error
