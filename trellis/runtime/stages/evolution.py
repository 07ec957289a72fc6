"""What has changed between the columns of one run and those of the one before; pure."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.folders import Column
from trellis.runtime.stages.rules import SchemaPolicy

# Each type holds every value of those before it in its row.
_LADDERS = (
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    ("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
    ("UTINYINT", "SMALLINT"), ("USMALLINT", "INTEGER", "DOUBLE"), ("UINTEGER", "BIGINT"), ("UBIGINT", "HUGEINT"),
    ("TINYINT", "SMALLINT", "FLOAT", "DOUBLE"), ("UTINYINT", "USMALLINT", "FLOAT"), ("UINTEGER", "DOUBLE"),
    ("DATE", "TIMESTAMP"),
)  # fmt: skip
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")


@dataclass(frozen=True, slots=True)
class Change:
    """One column that is not what it was: `change` is added, removed, widened or broken; types as DuckDB names them."""

    column: str
    change: str
    before: str
    after: str

    def __str__(self) -> str:
        types = {"added": self.after, "removed": self.before}.get(self.change, f"{self.before} to {self.after}")
        return f"{self.column} {self.change} ({types})"


def compare(before: Sequence[Column], after: Sequence[Column]) -> list[Change]:
    """The changes by column, those that are gone first; none where there was nothing before."""
    if not before:
        return []
    old, new = dict(before), dict(after)
    gone = [Change(name, "removed", kind, "") for name, kind in before if name not in new]
    fresh = [Change(name, "added", "", kind) for name, kind in after if name not in old]
    return gone + [_typed(name, old[name], new[name]) for name in old if name in new and old[name] != new[name]] + fresh


def enforce_policy(policy: SchemaPolicy, changes: Sequence[Change]) -> list[dict[str, Any]]:
    """The changes as they are noted, each with what was done. Raises StageFailed where the policy says stop."""
    actions = dict(policy.actions)
    stopped = [change for change in changes if actions[change.change] == "stop"]
    if stopped:
        named = "; ".join(str(change) for change in stopped[:10])
        raise StageFailed(f"the columns are not those of the run before: {named}. Allow it in `schema` if it is meant")
    return [{**asdict(change), "action": actions[change.change]} for change in changes]


def _typed(name: str, before: str, after: str) -> Change:
    return Change(name, "widened" if _widens(before, after) else "broken", before, after)


def _widens(before: str, after: str) -> bool:
    if any(before in row and after in row and row.index(before) < row.index(after) for row in _LADDERS):
        return True
    old, new = _DECIMAL.fullmatch(before), _DECIMAL.fullmatch(after)
    if old is None or new is None:
        return False
    (digits, places), (more_digits, more_places) = map(int, old.groups()), map(int, new.groups())
    return more_places >= places and more_digits - more_places >= digits - places
