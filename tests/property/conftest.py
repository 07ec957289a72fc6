"""The examples of this folder are those of `tests.support.examples`."""

from tests.support import examples

__all__ = ["examples"]
