"""Whether data keeps its rules, judged by DuckDB where the data lies: nothing is loaded whole, however large it is.

The rules about rows become one condition each and are counted in one pass. Rows that a rule puts aside are out of what
the other rules see.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import duckdb

from trellis.runtime.stages.engine import quoted, text
from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.queries import bare, check_query
from trellis.runtime.stages.rules import RULES, Rule

DATA = "data"
_HISTORY = 10


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one rule. `bad` counts rows, or is 1 where the whole failed; `found` is what was seen."""

    name: str
    rule: str
    severity: str
    passed: bool
    bad: int
    found: str

    def noted(self) -> dict[str, Any]:
        """As it is written down."""
        return asdict(self)


class Judge:
    """Judges the view `data` of a connection that is shut off. `inputs` are further views that queries may name."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, rules: Sequence[Rule], inputs: Sequence[str]) -> None:
        self._connection, self._inputs = connection, {DATA, *inputs}
        self._by_row = [rule for rule in rules if RULES[rule.rule]]
        self._of_whole = [rule for rule in rules if not RULES[rule.rule]]
        self._columns = connection.table(DATA).columns
        for rule in rules:
            self._check(rule)
        aside = [f"bad_{n}" for n, rule in enumerate(self._by_row) if rule.severity == "quarantine"]
        self._aside = " OR ".join(aside) or "false"

    @property
    def puts_aside(self) -> bool:
        """Whether there may be rows to put aside."""
        return self._aside != "false"

    def good(self) -> str:
        """SQL for the rows that stay."""
        return f"SELECT {self._listed()} FROM ({self._marked()}) AS marked WHERE NOT ({self._aside})"

    def bad(self) -> str:
        """SQL for the rows that are put aside, with the names of the rules that they broke as `_broken`."""
        marks = ", ".join(
            f"CASE WHEN bad_{n} THEN {text(rule.name)} END"
            for n, rule in enumerate(self._by_row)
            if rule.severity == "quarantine"
        )
        listed = f"{self._listed()}, list_filter([{marks}], lambda one: one IS NOT NULL) AS _broken"
        return f"SELECT {listed} FROM ({self._marked()}) AS marked WHERE {self._aside}"

    def judge_rows(self) -> list[Verdict]:
        """The verdicts on the rules about rows: one pass over the data."""
        if not self._by_row:
            return []
        counts = ", ".join(
            f"count(*) FILTER (WHERE bad_{n}{'' if rule.severity == 'quarantine' else f' AND NOT ({self._aside})'})"
            for n, rule in enumerate(self._by_row)
        )
        found = self._connection.execute(f"SELECT {counts} FROM ({self._marked()}) AS marked").fetchall()[0]
        return [
            Verdict(rule.name, rule.rule, rule.severity, bad == 0, bad, f"{bad} rows")
            for rule, bad in zip(self._by_row, found, strict=True)
        ]

    def judge_whole(self, row_counts: Sequence[int]) -> list[Verdict]:
        """The verdicts on the rules about the whole; `row_counts` are those of earlier runs, the last one last."""
        return [_WHOLE[rule.rule](self._connection, rule, row_counts) for rule in self._of_whole]

    def _marked(self) -> str:
        marks = "".join(
            f", coalesce(({_BAD[rule.rule](rule)}), false) AS bad_{n}" for n, rule in enumerate(self._by_row)
        )
        return f"SELECT *{marks} FROM {DATA}"

    def _listed(self) -> str:
        return ", ".join(quoted(name) for name in self._columns)

    def _check(self, rule: Rule) -> None:
        known = {name.lower() for name in self._columns}
        for column in rule.columns:
            if column.lower() not in known:
                raise StageFailed(
                    f"the rule {rule.name}: there is no column {column}; there are {', '.join(self._columns)}"
                )
        if rule.rule == "condition":
            check_query(f"SELECT (\n{rule.expression}\n) AS kept FROM {DATA}", {DATA})
        elif rule.rule == "sql":
            check_query(rule.expression, self._inputs)


def stop_if(verdicts: Sequence[Verdict]) -> None:
    """Raises StageFailed where a rule that stops was broken."""
    broken = [verdict for verdict in verdicts if not verdict.passed and verdict.severity == "stop"]
    if broken:
        named = "; ".join(f"{verdict.name}: {verdict.found}" for verdict in broken[:10])
        raise StageFailed(f"the data broke {len(broken)} rules: {named}")


def _literal(value: object) -> str:
    if isinstance(value, str):
        return text(value)
    return str(value).upper() if isinstance(value, bool) else repr(value)


def _bad_range(rule: Rule) -> str:
    column = quoted(rule.columns[0])
    bounds = ((f"{column} < ", rule.minimum), (f"{column} > ", rule.maximum))
    return " OR ".join(f"{compared}{_literal(bound)}" for compared, bound in bounds if bound is not None)


def _bad_unique(rule: Rule) -> str:
    names = [quoted(name) for name in rule.columns]
    known = " AND ".join(f"{name} IS NOT NULL" for name in names)
    return f"{known} AND count(*) OVER (PARTITION BY {', '.join(names)}) > 1"


_BAD: Mapping[str, Any] = {
    "not_null": lambda rule: " OR ".join(f"{quoted(name)} IS NULL" for name in rule.columns),
    "unique": _bad_unique,
    "range": _bad_range,
    "in_set": lambda rule: f"{quoted(rule.columns[0])} NOT IN ({', '.join(_literal(value) for value in rule.values)})",
    # DuckDB's expressions are RE2: no pattern takes more than linear time.
    "pattern": lambda rule: f"NOT regexp_full_match(CAST({quoted(rule.columns[0])} AS VARCHAR), {text(rule.pattern)})",
    "condition": lambda rule: f"NOT (\n{rule.expression}\n)",
}


def _freshness(connection: duckdb.DuckDBPyConnection, rule: Rule, row_counts: Sequence[int]) -> Verdict:
    newest = f"max(CAST({quoted(rule.columns[0])} AS TIMESTAMPTZ))"
    sql = f"SELECT CAST({newest} AS VARCHAR), epoch(now() - {newest}) FROM {DATA}"
    seen, age_s = connection.execute(sql).fetchall()[0]
    passed = age_s is not None and age_s <= rule.max_age_s
    return _of_whole(rule, passed, f"the newest is {seen or 'nothing'}, {rule.max_age_s} s old at most is wanted")


def _row_count(connection: duckdb.DuckDBPyConnection, rule: Rule, row_counts: Sequence[int]) -> Verdict:
    rows = connection.execute(f"SELECT count(*) FROM {DATA}").fetchall()[0][0]
    low, high = rule.minimum, rule.maximum
    earlier = row_counts[-_HISTORY:]
    bounds = [] if low is None else [float(low)]
    tops = [] if high is None else [float(high)]
    if rule.within is not None and earlier:
        usual = sum(earlier) / len(earlier)
        bounds.append(usual * (1 - rule.within))
        tops.append(usual * (1 + rule.within))
    passed = all(rows >= bound for bound in bounds) and all(rows <= top for top in tops)
    wanted = f"from {max(bounds, default=0):g} to {min(tops, default=float('inf')):g}"
    return _of_whole(rule, passed, f"{rows} rows, wanted are {wanted}")


def _sql(connection: duckdb.DuckDBPyConnection, rule: Rule, row_counts: Sequence[int]) -> Verdict:
    found = connection.execute(f"SELECT count(*) FROM (\n{bare(rule.expression)}\n) AS found").fetchall()[0][0]
    return Verdict(rule.name, rule.rule, rule.severity, found == 0, found, f"{found} rows")


def _of_whole(rule: Rule, passed: bool, found: str) -> Verdict:
    return Verdict(rule.name, rule.rule, rule.severity, passed, int(not passed), found)


_WHOLE: Mapping[str, Any] = {"freshness": _freshness, "row_count": _row_count, "sql": _sql}
