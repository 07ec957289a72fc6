"""Examples are judged by what they show, not by how long a busy machine took over them.

`TRELLIS_EXAMPLES=2000 pytest tests/property/test_invariants.py` looks harder than every run needs to.
"""

import os

from hypothesis import settings

settings.register_profile("untimed", deadline=None, max_examples=int(os.environ.get("TRELLIS_EXAMPLES", "100")))
settings.load_profile("untimed")
