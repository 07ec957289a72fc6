"""Parameters of a pipeline: declared with a type, given with a run, never code."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

from trellis.errors import Field, Invalid

TODAY = "today"  # of a date: the day of the run, in the zone of its schedule
LONGEST = 8_192
LARGEST = 2**53  # what every reader of JSON holds exactly


class ParameterType(StrEnum):
    """What a parameter's values are."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"


Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Parameter:
    """One declaration; without a default every run must say it."""

    type: ParameterType
    default: Value | None = None


def fault_of(kind: ParameterType, value: object) -> str | None:
    """What is wrong with a value, in words; None where nothing is."""
    match kind:
        case ParameterType.STRING:
            good = isinstance(value, str) and len(value) <= LONGEST and "\0" not in value
            return None if good else f"must be text of at most {LONGEST} characters"
        case ParameterType.INTEGER:
            good = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST
            return None if good else "must be a whole number"
        case ParameterType.NUMBER:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            return None if number and math.isfinite(float(str(value))) else "must be a finite number"
        case ParameterType.BOOLEAN:
            return None if isinstance(value, bool) else "must be true or false"
        case ParameterType.DATE:
            return None if value == TODAY or _is_date(value) else "must be a date such as 2026-01-31, or today"


def _is_date(value: object) -> bool:
    try:
        return isinstance(value, str) and date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def declaration_faults(declared: Mapping[str, Parameter]) -> list[Field]:
    """Defaults that are not of their type."""
    said = [(name, one) for name, one in declared.items() if one.default is not None]
    found = [(name, fault_of(one.type, one.default)) for name, one in said]
    return [Field(f"/parameters/{name}/default", fault) for name, fault in found if fault]


def resolve(
    declared: Mapping[str, Parameter], given: Mapping[str, object], at: datetime, zone: str
) -> dict[str, Value]:
    """What a run at that moment has. Raises Invalid with every fault: unknown, missing, of a wrong type."""
    known = ", ".join(declared) or "none"
    faults = [Field(f"/parameters/{name}", f"is no parameter; there are {known}") for name in given.keys() - declared]
    values: dict[str, Value] = {}
    for name, one in declared.items():
        value = given.get(name, one.default)
        if value is None:
            faults.append(Field(f"/parameters/{name}", "is missing, and has no default"))
        elif fault := fault_of(one.type, value):
            faults.append(Field(f"/parameters/{name}", fault))
        elif one.type is ParameterType.DATE and value == TODAY:
            values[name] = at.astimezone(ZoneInfo(zone)).date().isoformat()
        elif isinstance(value, str | int | float):
            values[name] = value
    if faults:
        raise Invalid(*sorted(faults, key=lambda field: field.pointer))
    return values
