"""Where in a request a fault lies."""

from collections.abc import Iterator
from contextlib import contextmanager

from trellis.errors import Field, Invalid


@contextmanager
def below(pointer: str) -> Iterator[None]:
    """Faults of a part are named by where it stands in the whole."""
    try:
        yield
    except Invalid as error:
        raise Invalid(*(Field(f"{pointer}{f.pointer}", f.message) for f in error.fields)) from error
