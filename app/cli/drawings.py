"""Pictures of a simulated run, as files."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from app.cli.errors import StackError
from scheduler.simulator.drawing import draw
from scheduler.simulator.run import History

_PNG = "resvg_py"


def check_drawing(path: Path) -> None:
    """See whether a picture could be written: before a long run, not after it.

    Raises StackError for an ending that is neither .svg nor .png, a folder that is not there, or PNG without its package.
    """
    if path.suffix.lower() not in (".svg", ".png"):
        raise StackError(f"{path}: pictures end in .svg or .png.")
    if not path.parent.is_dir():
        raise StackError(f"{path.parent} is no folder.")
    if path.suffix.lower() == ".png" and find_spec(_PNG) is None:
        raise StackError("PNG pictures need the package resvg-py: pip install 'trellis[draw]', or choose FILE.svg.")


def write_drawing(path: Path, history: History, title: str) -> None:
    """Write a picture of a run. Raises OSError."""
    svg = draw(history, title)
    if path.suffix.lower() == ".svg":
        path.write_text(svg)
    else:
        path.write_bytes(bytes(import_module(_PNG).svg_to_bytes(svg_string=svg)))
