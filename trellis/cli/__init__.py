"""The `trellis` command."""

import sys

_NEEDS = ("typer", "rich", "shellingham", "yaml", "pathspec")


def main() -> None:
    """Entry of the `trellis` command; exits the process."""
    try:
        from trellis.cli.root import app  # noqa: PLC0415  # optional: a client that is only imported lacks them
    except ModuleNotFoundError as error:
        if error.name not in _NEEDS:
            raise
        sys.exit(f"trellis: the command line needs {error.name}: pip install 'trellis[cli]'")
    app(prog_name="trellis")
