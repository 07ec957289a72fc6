"""Options whose text holds more than one thing."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from trellis.errors import Field, Invalid
from trellis.terms import read_term
from trellis.units import parse_seconds
from trellis.vocabulary import Cause, WarnSignal

_RULE = re.compile(r"(\w+)=(\d{1,2})(?::(\w+))?")
_CAUSES = f"causes are {', '.join(sorted(set(Cause) - {Cause.CANCELLED, Cause.SUSPENDED, Cause.MIGRATED}))}"


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


def rules(given: Iterable[str] | None) -> dict[str, dict[str, Any]]:
    """`out_of_memory=1` and `exit_code=5:60s` words as rules of retrying by cause. Raises Invalid."""
    found: dict[str, dict[str, Any]] = {}
    for word in given or ():
        match = _RULE.fullmatch(word)
        if match is None or match[1] not in list(Cause):
            raise Invalid(Field("--retry", f"must be CAUSE=TIMES or CAUSE=TIMES:PAUSE, not {word!r}; {_CAUSES}"))
        found[match[1]] = {"limit": int(match[2]), **({"backoff_s": match[3]} if match[3] else {})}
    return found


def warning(text: str | None) -> dict[str, Any]:
    """`USR1@60` as a signal and how long before the time limit it is sent. Raises Invalid."""
    if text is None:
        return {}
    name, at, before = text.partition("@")
    name = name.upper().removeprefix("SIG")
    if name not in list(WarnSignal) or (at and not before):
        raise Invalid(Field("--warn", f"must be such as USR1@60 or USR2@5m, with one of {', '.join(WarnSignal)}"))
    return {"warn_signal": name, **({"warn_before": before} if at else {})}


def codes(text: str | None) -> list[int] | None:
    """`75,76` as numbers. Raises Invalid."""
    if text is None:
        return None
    if not all(part.isdecimal() for part in text.split(",")):
        raise Invalid(Field("--retry-codes", f"must be such as 75 or 75,76, not {text!r}"))
    return [int(part) for part in text.split(",")]


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


def checkpoints(
    wanted: bool, every: str | None, by: str | None = None, *, or_fresh: bool = False
) -> dict[str, Any] | None:
    """`--checkpoint`, `--checkpoint-every`, `--checkpoint-by`, `--or-fresh` as the body has them; None where none was given."""
    given = wanted or every is not None or by is not None
    fresh = {"fresh_start": True} if or_fresh else {}
    try:
        body = {"every": parse_seconds(every or "10m"), **({"by": str(by)} if by else {})} if given else {}
        return body | fresh or None
    except ValueError as error:
        raise Invalid(Field("--checkpoint-every", str(error))) from error


def switches(given: Iterable[str] | None) -> dict[str, bool] | None:
    """`NAME`, `NAME=on` and `NAME=off` as what is on. Raises Invalid."""
    found = {}
    for text in given or ():
        name, equals, word = text.partition("=")
        if not name or (equals and word not in ("on", "off")):
            raise Invalid(Field("--feature", f"must be NAME, NAME=on or NAME=off, not {text!r}"))
        found[name] = word != "off"
    return found or None
