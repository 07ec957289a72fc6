"""How many statements a unit takes: what it costs, more than anything in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from tests.support.stack import Stack


@contextmanager
def counted(stack: Stack) -> Iterator[list[str]]:
    """The statements that the database got meanwhile; one that was sent with many rows is one."""
    statements: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    engine = stack.app.extensions["engine"]
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)
