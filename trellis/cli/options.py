"""Options whose text holds more than one thing."""

from collections.abc import Iterable
from datetime import datetime

from trellis.errors import Field, Invalid


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
