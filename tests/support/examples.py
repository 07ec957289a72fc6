"""How many examples are looked at, and which; to be imported before Hypothesis is asked for any.

Judged is what they show, not how long a busy machine took over them. Every run looks at the same ones, so a change is
judged by what it changed; `TRELLIS_EXAMPLES=2000 pytest tests/property tests/contract` looks at others, and at more.
"""

import os

from hypothesis import settings

_WANTED = os.environ.get("TRELLIS_EXAMPLES")
settings.register_profile("untimed", deadline=None, max_examples=int(_WANTED or 100), derandomize=_WANTED is None)
settings.load_profile("untimed")

CHEAP = settings(max_examples=max(300, settings().max_examples))
"""For what takes a millisecond an example: all of one seed, with a judge that is quick."""
