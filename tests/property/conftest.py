"""Examples are judged by what they show, not by how long a busy machine took over them.

Every run looks at the same ones: a change is judged by what it changed. `TRELLIS_EXAMPLES=2000 pytest tests/property`
looks at others, and at more.
"""

import os

from hypothesis import settings

_WANTED = os.environ.get("TRELLIS_EXAMPLES")
settings.register_profile("untimed", deadline=None, max_examples=int(_WANTED or 100), derandomize=_WANTED is None)
settings.load_profile("untimed")
