"""Taking a configuration apart field by field, gathering every fault on the way."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trellis.runtime.stages.faults import Fault
from trellis.units import parse_bytes, parse_seconds

_LONGEST_TEXT = 100_000
_MOST_ITEMS = 1000
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


class Fields:
    """The fields of one mapping. Each is taken once by a method that gives a usable value whatever came.

    What was never taken is unknown, and `close` says so. Faults go to the list that all parts of one configuration
    share, so that whoever parses sees everything at once.
    """

    def __init__(self, given: object, path: str, faults: list[Fault]) -> None:
        self.path, self.faults = path, faults
        self._given: dict[Any, Any] = dict(given) if isinstance(given, Mapping) else {}
        self._known: set[str] = set()
        if not isinstance(given, Mapping):
            self.fault("", f"must be an object with fields, not {type(given).__name__}")

    def fault(self, field: str, message: str) -> None:
        """Say what is wrong with a field; with "" of the whole."""
        self.faults.append(Fault(".".join(part for part in (self.path, field) if part), message))

    def has(self, field: str) -> bool:
        """Whether the field was given, null being as good as not."""
        self._known.add(field)
        return self._given.get(field) is not None

    def raw(self, field: str) -> Any:
        """The field as it came; None where it did not."""
        self._known.add(field)
        return self._given.get(field)

    def text(self, field: str, default: str | None = None, *, like: re.Pattern[str] | None = None) -> str:
        """A text without control characters but line breaks and tabs; required where there is no default."""
        found = self._present(field, default is not None)
        if found is None:
            return default or ""
        if not isinstance(found, str) or not found.strip():
            self.fault(field, "must be a text")
        elif len(found) > _LONGEST_TEXT:
            self.fault(field, f"must have at most {_LONGEST_TEXT} characters")
        elif any(ord(sign) < 32 and sign not in "\n\r\t" for sign in found):
            self.fault(field, "must not hold control characters")
        elif like is not None and not like.fullmatch(found):
            self.fault(field, f"{found[:80]!r} is no name: letters, digits and '_', not beginning with a digit")
        else:
            return found
        return default or ""

    def one_of(self, field: str, choices: Iterable[str], default: str | None = None) -> str:
        """One of a few words."""
        allowed = list(choices)
        found = self._present(field, default is not None)
        if found is None:
            return default or allowed[0]
        if isinstance(found, str) and found in allowed:
            return found
        self.fault(field, f"must be one of {', '.join(allowed)}")
        return default or allowed[0]

    def flag(self, field: str, default: bool) -> bool:
        """True or false."""
        found = self._present(field, True)
        if found is None or isinstance(found, bool):
            return default if found is None else found
        self.fault(field, "must be true or false")
        return default

    def integer(self, field: str, default: int | None, lowest: int, highest: int) -> int:
        """A whole number within bounds; required where the default is None."""
        found = self._present(field, default is not None)
        fallback = lowest if default is None else default
        if found is None:
            return fallback
        if isinstance(found, int) and not isinstance(found, bool) and lowest <= found <= highest:
            return found
        self.fault(field, f"must be a whole number from {lowest} to {highest}")
        return fallback

    def number(self, field: str) -> float | int | None:
        """A finite number; None where there is none."""
        found = self.raw(field)
        if found is None:
            return None
        if isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found):
            return found
        self.fault(field, "must be a finite number")
        return None

    def amount(self, field: str, default: str) -> int:
        """Bytes, written as `10GB`."""
        return self._parsed(field, default, parse_bytes)

    def duration(self, field: str, default: str) -> int:
        """Seconds, written as `30s`, `6h`."""
        return self._parsed(field, default, parse_seconds)

    def texts(self, field: str, *, required: bool) -> tuple[str, ...]:
        """A list of texts, each once; a single text is a list of one."""
        found = self._present(field, not required)
        if found is None:
            return ()
        items = [found] if isinstance(found, str) else found
        if not isinstance(items, list | tuple) or not items or not all(isinstance(one, str) and one for one in items):
            self.fault(field, "must be a list of texts, at least one")
            return ()
        if len(items) > _MOST_ITEMS or len(set(items)) != len(items):
            self.fault(field, f"must name at most {_MOST_ITEMS}, each once")
        return tuple(items)

    def items(self, field: str, *, required: bool = False) -> list[Any]:
        """A list of anything; empty where there is none."""
        found = self._present(field, not required)
        if found is None:
            return []
        if isinstance(found, list | tuple) and len(found) <= _MOST_ITEMS and (found or not required):
            return list(found)
        self.fault(field, f"must be a list of {1 if required else 0} to {_MOST_ITEMS}")
        return []

    def mapping(self, field: str) -> dict[str, str]:
        """An object of texts; empty where there is none."""
        found = self._present(field, True)
        if found is None:
            return {}
        if isinstance(found, Mapping) and all(isinstance(k, str) and isinstance(v, str) for k, v in found.items()):
            return dict(found)
        self.fault(field, "must be an object of texts")
        return {}

    def part(self, field: str) -> "Fields":
        """The fields of an object within; a missing one is a fault."""
        return Fields(self._present(field, False) or {}, f"{self.path}.{field}".strip("."), self.faults)

    def close(self) -> None:
        """Name what nobody asked for."""
        for unknown in sorted(str(name) for name in self._given.keys() - self._known):
            known = ", ".join(sorted(self._known))
            self.fault(unknown[:80], f"is not known here; known are {known}")

    def _present(self, field: str, optional: bool) -> Any:
        found = self.raw(field)
        if found is None and not optional:
            self.fault(field, "is missing")
        return found

    def _parsed(self, field: str, default: str, parse: Callable[[str], int]) -> int:
        found = self.raw(field)
        if found is not None:
            try:
                return parse(found)
            except (ValueError, TypeError) as error:
                self.fault(field, str(error))
        return parse(default)
