"""Conditions on labels of nodes as people type them: `disk`, `!disk`, `zone=north,south`, `zone!=north`, `cores>8`."""

import re
from typing import Any

_TERM = re.compile(r"(?P<label>[A-Za-z0-9][\w./-]{0,62})(?:(?P<sign>!=|=|>|<)(?P<value>[^=<>!&|]+))?", re.ASCII)
_SIGNS = {"=": "in", "!=": "not_in", ">": "above", "<": "below"}


def read_term(text: str) -> dict[str, Any]:
    """The term that `text` stands for, as a submission has it. Raises ValueError with the way out."""
    absent, text_of_label = text.startswith("!"), text.removeprefix("!")
    match = _TERM.fullmatch(text_of_label)
    if match is None or (absent and match["sign"]):
        raise ValueError(f"{text!r} is no condition on a label: say NAME, !NAME, NAME=VALUE, NAME!=VALUE, NAME>NUMBER")
    if not match["sign"]:
        return {"label": match["label"], "operator": "absent" if absent else "exists"}
    return {"label": match["label"], "operator": _SIGNS[match["sign"]], "values": match["value"].split(",")}
