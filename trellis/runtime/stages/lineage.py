"""Which column of which input each column of the output comes from, read off the query before it runs."""

from collections.abc import Mapping, Sequence

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.lineage import Node, lineage

from trellis.runtime.stages.folders import Column

Origins = dict[str, list[dict[str, str]]]


def trace(tree: exp.Query, inputs: Mapping[str, Sequence[Column]], output: Sequence[str]) -> Origins:
    """The origins of each column of `output`, in order of input and column; none for what comes from no column.

    A query that can't be followed has origins for none: the result is {} then. What cannot be known is not guessed.
    """
    schema = {name: dict(columns) for name, columns in inputs.items()}
    try:
        roots = lineage(None, tree, schema, dialect="duckdb", trim_selects=False)
    except (SqlglotError, ValueError, KeyError, RecursionError):
        return {}
    spelled = {name.lower(): name for name in output}
    found = {spelled[name.lower()]: root for name, root in roots.items() if name.lower() in spelled}
    return {name: _origins(root, inputs) for name, root in found.items()}


def _origins(root: Node, inputs: Mapping[str, Sequence[Column]]) -> list[dict[str, str]]:
    names = {name.lower(): name for name in inputs}
    found: set[tuple[str, str]] = set()
    for node in root.walk():
        if node.downstream or not isinstance(node.source, exp.Table):
            continue
        table = names.get(node.source.name.lower())
        column = node.name.rsplit(".", 1)[-1].strip('"')
        spelled = {name.lower(): name for name, _ in inputs[table]} if table else {}
        if table and column.lower() in spelled:
            found.add((table, spelled[column.lower()]))
    return [{"input": table, "column": column} for table, column in sorted(found)]
