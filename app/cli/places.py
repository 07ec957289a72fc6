"""Where in a YAML file something is said."""

import re
from pathlib import Path

import yaml

_WORDS = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_PLACE = re.compile(r"[A-Za-z_]\w*(?:\[\d+\]|\.[^\s.\[\]]+)*(?= )")


def located(path: Path, fault: str) -> str:
    """A sentence that names the file, the line and the fault, which begins with a place such as `clusters[0].nodes[2]`."""
    place = _PLACE.match(fault)
    line = _line_of(path, place[0]) if place else None
    return f"{path}, line {line}: {fault}." if line else f"{path}: {fault}."


def _line_of(path: Path, place: str) -> int | None:
    """The line, from 1, of the innermost part of `place` that there is; None where none of it is."""
    node, line = yaml.compose(path.read_text(), Loader=yaml.SafeLoader), None
    for word, index in _WORDS.findall(place):
        found = _within(node, word, index)
        if found is None:
            break
        line, node = found
    return line


def _within(node: yaml.Node | None, word: str, index: str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and index and int(index) < len(node.value):
        item = node.value[int(index)]
        return item.start_mark.line + 1, item
    if isinstance(node, yaml.MappingNode) and word:
        return next(((key.start_mark.line + 1, value) for key, value in node.value if key.value == word), None)
    return None
