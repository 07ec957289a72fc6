"""What data must keep to: quality rules and the policy for changes of a schema. Pure."""

import re
from dataclasses import dataclass, field
from typing import Any, get_args

from trellis.runtime.stages.fields import Fields

SEVERITIES = ("stop", "warn", "quarantine")
# Whether a rule judges each row by itself: only then is there a bad row to put aside.
RULES = {
    "not_null": True, "unique": True, "range": True, "in_set": True, "pattern": True, "condition": True,
    "freshness": False, "row_count": False, "sql": False,
}  # fmt: skip
CHANGES = ("added", "removed", "widened", "broken")
_ACTIONS = ("allow", "warn", "stop")
_SCALARS = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. What it needs beside its columns is in the field of that name; the others stay empty.

    `max_age_s` counts back from the moment of the check. `within` is the share by which the number of rows may differ
    from the mean of earlier runs, e.g. 0.5. `expression` is a condition that each row must meet, or a SELECT over
    `data` (and the stage's inputs) that must find nothing.
    """

    rule: str
    name: str
    severity: str = "stop"
    columns: tuple[str, ...] = ()
    minimum: float | int | str | None = None
    maximum: float | int | str | None = None
    values: tuple[str | int | float | bool, ...] = ()
    pattern: str = ""
    max_age_s: int = 0
    within: float | None = None
    expression: str = ""


@dataclass(frozen=True, slots=True)
class SchemaPolicy:
    """What to do when the columns of a data set are not those of the run before: allow, warn or stop."""

    actions: tuple[tuple[str, str], ...] = field(
        default=(("added", "allow"), ("removed", "stop"), ("widened", "allow"), ("broken", "stop"))
    )


def parse_rules(fields: Fields, name: str, *, required: bool) -> tuple[Rule, ...]:
    """The rules in the list `name`."""
    return tuple(
        _rule(Fields(one, f"{name}[{number}]", fields.faults), number)
        for number, one in enumerate(fields.items(name, required=required))
    )


def parse_policy(fields: Fields, name: str) -> SchemaPolicy:
    """The policy in the object `name`; the usual one where there is none."""
    usual = SchemaPolicy()
    if not fields.has(name):
        return usual
    found = fields.part(name)
    policy = SchemaPolicy(tuple((change, found.one_of(change, _ACTIONS, action)) for change, action in usual.actions))
    found.close()
    return policy


def _rule(fields: Fields, number: int) -> Rule:
    kind = fields.one_of("rule", RULES)
    severity = fields.one_of("severity", SEVERITIES, "stop")
    if severity == "quarantine" and not RULES[kind]:
        fields.fault("severity", f"{kind} judges the whole, so there is no row to put aside: warn or stop")
    given: dict[str, Any] = _WHAT[kind](fields)
    name = fields.text("name", f"{kind} {', '.join(given.get('columns', ()))}".strip() or f"{kind} {number}")
    fields.close()
    return Rule(rule=kind, name=name[:200], severity=severity, **given)


def _columns(fields: Fields) -> dict[str, Any]:
    field_name = "columns" if fields.has("columns") else "column"
    return {"columns": fields.texts(field_name, required=True)}


def _column(fields: Fields) -> dict[str, Any]:
    return {"columns": (fields.text("column"),)}


def _range(fields: Fields) -> dict[str, Any]:
    bounds = {"minimum": _bound(fields, "min"), "maximum": _bound(fields, "max")}
    if bounds["minimum"] is None and bounds["maximum"] is None:
        fields.fault("min", "give `min`, `max` or both")
    return _column(fields) | bounds


def _bound(fields: Fields, name: str) -> float | int | str | None:
    """A number, or a text such as a date."""
    return fields.text(name) if isinstance(fields.raw(name), str) else fields.number(name)


def _in_set(fields: Fields) -> dict[str, Any]:
    values = fields.items("values", required=True)
    if not all(isinstance(value, get_args(_SCALARS)) for value in values):
        fields.fault("values", "must be texts, numbers or booleans")
        values = []
    return _column(fields) | {"values": tuple(values)}


def _pattern(fields: Fields) -> dict[str, Any]:
    pattern = fields.text("pattern")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        fields.fault("pattern", f"is no regular expression: {error}")
    return _column(fields) | {"pattern": pattern}


def _freshness(fields: Fields) -> dict[str, Any]:
    if not fields.has("max_age"):
        fields.fault("max_age", "is missing")
    return _column(fields) | {"max_age_s": fields.duration("max_age", "1d")}


def _row_count(fields: Fields) -> dict[str, Any]:
    low, high, within = (fields.number(name) for name in ("min", "max", "within"))
    if low is None and high is None and within is None:
        fields.fault("min", "give `min`, `max` or `within`")
    if within is not None and within <= 0:
        fields.fault("within", "must be above 0: 0.5 allows half more or less than usual")
    return {"minimum": low, "maximum": high, "within": within}


def _expression(name: str) -> Any:
    return lambda fields: {"expression": fields.text(name)}


_WHAT: dict[str, Any] = {
    "not_null": _columns, "unique": _columns, "range": _range, "in_set": _in_set, "pattern": _pattern,
    "condition": _expression("condition"), "freshness": _freshness, "row_count": _row_count, "sql": _expression("sql"),
}  # fmt: skip
