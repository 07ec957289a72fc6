"""SQL that a user wrote, judged before it runs: one SELECT over the inputs by name, that reaches for nothing else.

The wall is DuckDB itself, shut off from files, network, extensions and settings. What is refused here would mostly fail
there too; here it is refused before anything runs, in words that say what to write instead. Two parsers must agree
that it is one query: sqlglot's, whose tree is looked through, and DuckDB's, which runs it.
"""

from collections.abc import Collection, Iterator

import duckdb
from sqlglot import exp, parse
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import TokenType
from sqlglot.tokens import Tokenizer

from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.fields import NAME

_LONGEST = 100_000
_MOST_NODES = 50_000
# What stands after FROM with brackets and reads nothing but its arguments.
_TABLE_FUNCTIONS = (exp.Unnest, exp.GenerateSeries, exp.Values, exp.ExplodingGenerateSeries)
_TABLE_FUNCTION_NAMES = {"range", "generate_series", "unnest", "explode"}
# Scalar functions that tell of the process or change it, and those that run or name other SQL.
_REFUSED_FUNCTIONS = {
    "current_setting", "getenv", "getvariable", "set_config", "nextval", "currval", "query", "query_table",
    "json_execute_serialized_sql", "from_substrait", "from_substrait_json", "get_substrait", "glob", "write_log",
    "parse_duckdb_log_message", "sleep_ms", "sleep",
}  # fmt: skip
_REFUSED_PARTS = ("read_", "pragma_", "duckdb_", "parquet_", "sqlite_", "postgres_", "mysql_", "iceberg_", "delta_")
_CHANGES = (
    exp.DML, exp.Create, exp.Drop, exp.Alter, exp.Command, exp.Attach, exp.Detach, exp.Copy, exp.Pragma, exp.Set,
    exp.Use, exp.Describe, exp.Summarize, exp.Show, exp.LoadData, exp.Into, exp.Export, exp.Install, exp.Transaction,
)  # fmt: skip


def check_query(sql: str, inputs: Collection[str]) -> exp.Query:
    """The tree of `sql`, one SELECT over `inputs`. Raises StageFailed, naming what it may not do."""
    if len(sql) > _LONGEST:
        raise StageFailed(f"SQL of more than {_LONGEST} characters")
    if "\x00" in sql:
        raise StageFailed("SQL must not hold NUL")
    try:
        sql = bare(sql)
        trees = parse(sql, read="duckdb")
    except SqlglotError as error:
        raise StageFailed(f"the SQL can't be read: {_first_line(error)}") from error
    except RecursionError as error:
        raise StageFailed("the SQL is nested too deeply") from error
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        raise StageFailed("the SQL must be one SELECT (WITH before it is fine), nothing before or after it")
    _judge(trees[0], inputs)
    _second_opinion(sql)
    return trees[0]


def one_query(sql: str, dialect: str) -> str:
    """A query for another database, as it can stand in brackets: one SELECT. What it may see is that database's affair.

    Raises: StageFailed.
    """
    try:
        inner = bare(sql, dialect)
        trees = parse(inner, read=dialect)
    except SqlglotError as error:
        raise StageFailed(f"the query can't be read: {_first_line(error)}") from error
    except RecursionError as error:
        raise StageFailed("the query is nested too deeply") from error
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        raise StageFailed("the query must be one SELECT (WITH before it is fine), nothing before or after it")
    return inner


def bare(sql: str, dialect: str = "duckdb") -> str:
    """The query without a semicolon at its end, so that it can stand in brackets. Raises SqlglotError."""
    tokens = Tokenizer(dialect=dialect).tokenize(sql)
    if tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        return sql[: tokens[-1].start]
    return sql


def parameters_of(sql: str) -> set[str]:
    """The names written as `$name`."""
    return set(duckdb.extract_statements(sql)[0].named_parameters)


def _judge(tree: exp.Query, inputs: Collection[str]) -> None:
    known = {name.lower() for name in inputs}
    for number, node in enumerate(tree.walk()):
        if number > _MOST_NODES:
            raise StageFailed("the SQL is too long: split it into stages")
        if node is not tree and isinstance(node, _CHANGES):
            raise StageFailed(f"the SQL may only select: {_shown(node)} is not allowed in it")
        if isinstance(node, exp.Table):
            _judge_table(node, known)
        elif isinstance(node, exp.CTE) and not NAME.fullmatch(node.alias):
            # Within its own definition such a name is no query but, to DuckDB, perhaps a file.
            raise StageFailed(f"{node.alias[:80]!r} can't name a part of the query: letters, digits and '_'")
        elif isinstance(node, exp.Func):
            _judge_function(node)
        elif isinstance(node, exp.Placeholder) and not node.name:
            raise StageFailed("name each parameter: $name instead of ?")


def _judge_table(table: exp.Table, inputs: set[str]) -> None:
    inner = table.this
    if isinstance(inner, exp.Func):
        if _name_of(inner) not in _TABLE_FUNCTION_NAMES and not isinstance(inner, _TABLE_FUNCTIONS):
            raise StageFailed(f"the function {_name_of(inner)} can't stand after FROM: select from {_listed(inputs)}")
        return
    if not isinstance(inner, exp.Identifier):
        raise StageFailed(f"{_shown(table)} can't stand after FROM: select from {_listed(inputs)}")
    if table.args.get("db") or table.args.get("catalog"):
        raise StageFailed(f"{_shown(table)} names a schema or catalog: select from {_listed(inputs)}")
    if inner.name.lower() not in inputs | set(_names_in_reach(table)):
        raise StageFailed(f"there is no input {inner.name[:80]!r}: select from {_listed(inputs)}")


def _names_in_reach(table: exp.Table) -> Iterator[str]:
    """Names that a WITH around the table gives."""
    node: exp.Expr | None = table
    while node is not None:
        clause = node.args.get("with_") or node.args.get("with")
        if isinstance(clause, exp.With):
            yield from (one.alias.lower() for one in clause.expressions)
        node = node.parent


def _judge_function(function: exp.Func) -> None:
    name = _name_of(function)
    if name in _REFUSED_FUNCTIONS or name.startswith(_REFUSED_PARTS):
        raise StageFailed(f"the function {name} reaches outside of the inputs: it is not allowed in the SQL of a stage")


def _name_of(function: exp.Expr) -> str:
    if isinstance(function, exp.Anonymous):
        return str(function.name).lower().strip('"')
    return function.sql_name().lower() if isinstance(function, exp.Func) else ""


def _second_opinion(sql: str) -> None:
    """What DuckDB's own parser makes of it."""
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise StageFailed(f"the SQL can't be read: {_first_line(error)}") from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise StageFailed("the SQL must be one SELECT (WITH before it is fine), nothing before or after it")


def _listed(inputs: set[str]) -> str:
    return f"the inputs {', '.join(sorted(inputs))}" if inputs else "nothing: the stage has no inputs"


def _shown(node: exp.Expr) -> str:
    return node.sql("duckdb")[:80]


def _first_line(error: Exception) -> str:
    return " ".join(str(error).replace("\x1b[4m", "").replace("\x1b[0m", "").split())[:500]
