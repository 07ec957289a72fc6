"""JSON as RFC 8259 has it and no further: UTF-8, finite numbers, each name once, not too deep."""

import json
import math
from typing import Any, NoReturn

from trellis.errors import Field, Invalid

DEEPEST = 64


def loads(body: str | bytes) -> Any:
    """The value of a JSON text. Raises Invalid that says where it goes wrong."""
    try:
        text = body if isinstance(body, str) else body.decode()
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_each_once)
    except UnicodeDecodeError as error:
        raise _invalid(f"the body is not UTF-8: byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise _invalid(f"the body is not JSON: {error.msg}, line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise _invalid(f"the body is nested deeper than {DEEPEST} levels") from error
    except ValueError as error:  # a whole number of thousands of digits
        raise _invalid("the body holds a number that is too long") from error
    # A walk is only worth its time where there is something to find.
    if text.count("[") + text.count("{") > DEEPEST or "\\u" in text:
        _walk(value)
    return value


def _walk(value: Any) -> None:
    level, depth = [value], 0
    while level:
        inner: list[Any] = []
        for item in level:
            if depth == DEEPEST and isinstance(item, dict | list):
                raise _invalid(f"the body is nested deeper than {DEEPEST} levels")
            if isinstance(item, dict):
                inner += [*item, *item.values()]
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, str) and any("\ud800" <= c <= "\udfff" or c == "\0" for c in item):
                raise _invalid("the body holds half of a surrogate pair, or a NUL: neither is text")
        level, depth = inner, depth + 1


def _refuse_constant(word: str) -> NoReturn:
    raise _invalid(f"the body holds {word}, which is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _invalid(f"the number {text[:40]} is too large")
    return number


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _invalid(f"the name {twice[:40]!r} stands twice in one object")
    return found


def _invalid(detail: str) -> Invalid:
    return Invalid(Field("", detail), detail=detail)
