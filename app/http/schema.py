"""What all request schemas share: strict amounts, no unknown field, faults named by JSON pointer."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from trellis import units
from trellis.errors import Field, Invalid

NAME = validate.Regexp(
    r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$",
    error="must be 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning and ending in a letter or digit",
)

LABEL_NAME = validate.Regexp(r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$", error="must be 1 to 63 of A-Z, a-z, 0-9, . _ / -")

_PARSE: Mapping[str, Callable[[Any], int]] = {
    "bytes": units.parse_bytes, "milli": units.parse_milli, "seconds": units.parse_seconds,
    "usd": units.parse_usd,
}  # fmt: skip


class Strict(Schema):
    """A body with a field we do not know is refused, so that a typing error is never a silent default."""

    class Meta:
        """Marshmallow's options."""

        unknown = RAISE


class Text(fields.String):
    """Text without NUL (PostgreSQL holds none) and without other control characters than newline and tab."""

    def __init__(self, *, longest: int = 200, lines: bool = False, shortest: int = 0, **options: Any) -> None:
        options.setdefault("validate", validate.Length(min=shortest, max=longest))
        super().__init__(**options)
        self._allowed = "\n\t\r" if lines else ""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        if any((c < " " and c not in self._allowed) or c == "\x7f" for c in text):
            raise ValidationError("must not hold control characters")
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise ValidationError("must be valid Unicode")
        return text


class Integer(fields.Integer):
    """A whole number within bounds; no text, no boolean, no fraction, though it be .0."""

    def __init__(self, *, least: int, most: int, **options: Any) -> None:
        super().__init__(strict=True, validate=validate.Range(least, most), **options)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValidationError("must be a whole number")
        return super()._deserialize(value, attr, data, **kwargs)


class QueryInteger(fields.Integer):
    """The same where everything is text: a parameter of the address."""

    def __init__(self, *, least: int, most: int, **options: Any) -> None:
        super().__init__(validate=validate.Range(least, most), **options)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not (isinstance(value, str) and value.removeprefix("-").isascii() and value.removeprefix("-").isdigit()):
            raise ValidationError("must be a whole number")
        if len(value) > 20:
            raise ValidationError("is too large")
        return super()._deserialize(value, attr, data, **kwargs)


class ReasonSchema(Strict):
    """Why, for the record."""

    reason = Text(longest=500, load_default="")


class Amount(fields.Field[int]):
    """An amount with a unit, parsed by `trellis.units` into an integer in base units."""

    def __init__(self, kind: str, *, least: int = 0, most: int = units.LARGEST, **options: Any) -> None:
        super().__init__(**options)
        self.kind, self.least, self.most = kind, least, most

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValidationError("must be a finite number")
        if isinstance(value, str) and len(value) > 40:
            raise ValidationError("is too long for an amount")
        try:
            amount = _PARSE[self.kind](value)
        except ValueError as error:
            raise ValidationError(str(error)) from error
        if not self.least <= amount <= self.most:
            raise ValidationError(self._bounds())
        return amount

    def _bounds(self) -> str:
        show = _SHOWN[self.kind]
        return f"must be from {show(self.least)} to {show(self.most)}"


_SHOWN: Mapping[str, Callable[[int], str]] = {
    "bytes": units.format_bytes,
    "seconds": lambda amount: f"{amount} s",
    "milli": lambda amount: f"{amount / 1000:g}",
    "usd": lambda amount: f"{amount / 1_000_000:g}",
}


def to_invalid(error: ValidationError) -> Invalid:
    """Marshmallow's nested messages as a flat list of pointers."""
    messages: Any = error.normalized_messages()  # type: ignore[no-untyped-call]  # marshmallow leaves it untyped
    if len(messages) == 1 and (where := next(iter(messages))) in ("json", "query", "headers"):
        messages = messages[where]  # webargs wraps them in where they came from
    return Invalid(*_flatten("", messages))


def _flatten(pointer: str, messages: Any, *, of_list: bool = False) -> Iterator[Field]:
    if isinstance(messages, Mapping):
        for key, inner in messages.items():
            part = str(key).replace("~", "~0").replace("/", "~1")
            # marshmallow's words for the whole of an object, and for the two halves of an entry of a Dict; in what
            # stands in a list they are names of fields
            is_part = key != "_schema" and not (pointer and not of_list and key in ("key", "value"))
            yield from _flatten(f"{pointer}/{part}" if is_part else pointer, inner, of_list=isinstance(key, int))
    elif isinstance(messages, list):
        for message in messages:
            yield from _flatten(pointer, message)
    else:
        yield Field(pointer, _sentence(str(messages)))


def _sentence(message: str) -> str:
    known = {
        "Unknown field.": "is not known here",
        "Missing data for required field.": "is missing",
        "Field may not be null.": "must not be null",
        "Not a valid string.": "must be text",
        "Not a valid list.": "must be a list",
        "Not a valid mapping type.": "must be an object",
        "Invalid input type.": "must be an object",
        "Not a valid boolean.": "must be true or false",
        "Not a valid datetime.": "must be a time such as 2026-01-31T12:00:00Z",
        "Not a valid UUID.": "must be an id",
    }
    return known.get(message, message[0].lower() + message[1:].rstrip(".") if message else message)
