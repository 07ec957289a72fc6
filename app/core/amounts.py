"""Amounts of what machines have: held, asked for, or allowed at most."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

NAMES = ("cpu_milli", "memory_bytes", "gpu_milli")


@dataclass(frozen=True, slots=True)
class Amounts:
    """So much of each; 1000 milli are one whole."""

    cpu_milli: int = 0
    memory_bytes: int = 0
    gpu_milli: int = 0

    def __add__(self, other: "Amounts") -> "Amounts":
        return Amounts(*(getattr(self, name) + getattr(other, name) for name in NAMES))

    def __mul__(self, count: int) -> "Amounts":
        return Amounts(*(getattr(self, name) * count for name in NAMES))


NOTHING = Amounts()


@dataclass(frozen=True, slots=True)
class Limits:
    """At most so much of each; None: no limit."""

    cpu_milli: int | None = None
    memory_bytes: int | None = None
    gpu_milli: int | None = None

    def stored(self) -> dict[str, Any]:
        """As JSON, without those that there are not."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Self:
        """What `stored` wrote."""
        return cls(**stored)

    def first_exceeded(self, amounts: Amounts) -> str | None:
        """The name of the first amount that is over its limit, None where all are within."""
        for name in NAMES:
            limit = getattr(self, name)
            if limit is not None and getattr(amounts, name) > limit:
                return name
        return None

    def plus(self, more: "Limits") -> "Limits":
        """Raised by `more`, where both say something; a limit that is not there stays so."""
        return Limits(*(_sum(getattr(self, name), getattr(more, name)) for name in NAMES))


def _sum(limit: int | None, more: int | None) -> int | None:
    return None if limit is None else limit + (more or 0)
