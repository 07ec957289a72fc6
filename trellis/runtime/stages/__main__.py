"""Runs one stage: `python -m trellis.runtime.stages SPEC.json`. Ends with 0, or with 1 and one line that says why.

The environment of the job says what it may reach:
TRELLIS_DATA_ROOTS: folders, parted by ':', below which paths of sources and sinks lie; the working folder by default.
TRELLIS_EGRESS_ALLOW: networks beside the public ones that may be called, such as `10.1.0.0/16, 127.0.0.1:9000`.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from trellis.runtime.stages.egress import Egress
from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.spec import Surroundings, read_spec


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """The exit code."""
    if len(arguments) != 1:
        print("usage: python -m trellis.runtime.stages SPEC.json", file=sys.stderr)
        return 2
    try:
        spec = read_spec(Path(arguments[0]))
        # Only now: a spec that is wrong is said to be so also where the libraries are not installed.
        from trellis.runtime.stages.stage import run_stage  # noqa: PLC0415

        roots = tuple(Path(root).resolve() for root in environment.get("TRELLIS_DATA_ROOTS", ".").split(":") if root)
        around = Surroundings(environment, roots, Egress.parse(environment.get("TRELLIS_EGRESS_ALLOW", "")))
        print(run_stage(spec, around))
    except StageFailed as error:
        print(f"stage failed: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"stage failed: {error.name} is not installed: pip install 'trellis[data]'", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
