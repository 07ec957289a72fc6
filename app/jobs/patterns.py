"""What people look for in logs: expressions that no text makes slow.

RE2 takes time in proportion to the text, whatever the expression: it has no backtracking, hence no back references
and no look-around. A program for an expression that would need more than its share of memory is refused.
"""

from collections.abc import Callable
from functools import lru_cache

import re2

from trellis.errors import Field, Invalid

LONGEST = 200
# Of what it takes while it searches, too. An expression that would need more is refused, or searches at 2 MB/s at worst.
_PROGRAM_BYTES = 1 << 18
Matcher = Callable[[str], bool]


@lru_cache(maxsize=32)
def matcher(expression: str) -> Matcher:
    """Whether a line holds something that the expression describes. Raises Invalid for one that can't be."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PROGRAM_BYTES
    options.never_capture = True  # nobody asks what a group matched, and finding that out is what is slow
    try:
        found = re2.compile(expression.encode(), options)
    except re2.error as error:
        why = error.args[0]
        shown = why.decode(errors="replace") if isinstance(why, bytes) else str(why)
        raise Invalid(
            Field("/grep", f"is no regular expression that can be searched for ({shown}): RE2 syntax, no look-around")
        ) from error
    return lambda text: found.search(text.encode()) is not None
