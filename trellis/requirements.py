"""Files that name packages of Python, as far as they may make an environment.

What would run code of its own while it is built (sources, repositories), or says where packages come from, is refused:
where they come from is for the operator of a node to say.
"""

import re

LARGEST = 1 << 20
_PACKAGE = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:\[[A-Za-z0-9._, -]*\])?\s*(?:[(<>=!~;@].*)?", re.ASCII
)
_HASH = re.compile(r"\s--hash=(\S+)")
_HASH_FORM = re.compile(r"sha(?:256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128})")
_REMARK = re.compile(r"(?:^|\s)#.*$")


def check(text: str) -> None:
    """Raises ValueError that names the first line that may not be, and what to do about it."""
    if len(text.encode()) > LARGEST:
        raise ValueError(f"is larger than {LARGEST >> 20} MiB")
    for number, line in _lines(text):
        if fault := _fault(line):
            raise ValueError(f"line {number} ({line[:80]!r}) {fault}")


def has_hashes(text: str) -> bool:
    """Whether it says what any of its packages must be: then all of them must be said."""
    return any(_HASH.search(line) for _, line in _lines(text))


def _lines(text: str) -> list[tuple[int, str]]:
    """Lines with what they mean, their continuations joined, without remarks; by the number of their first."""
    found = []
    begun, began = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = _REMARK.sub("", raw).rstrip()
        began = began or number
        if line.endswith("\\"):
            begun += line[:-1] + " "
            continue
        if whole := (begun + line).strip():
            found.append((began, whole))
        begun, began = "", 0
    if begun.strip():
        found.append((began, begun.strip()))
    return found


def _fault(line: str) -> str:
    if line.startswith("-"):
        return "is an option: one file names all packages (`uv pip compile` makes one of several), and nothing else"
    wrong = [digest for digest in _HASH.findall(f" {line}") if not _HASH_FORM.fullmatch(digest)]
    if wrong:
        return f"has a hash that is none: {wrong[0][:80]}"
    wish = _HASH.sub("", f" {line}").strip()
    if "://" in wish or "@" in wish:
        return "names an address: packages come from where the node's operator says"
    if "${" in wish or " --" in wish:
        return "has an option or a variable, which are not for requirements of a job"
    if not _PACKAGE.fullmatch(wish):
        return "is no requirement such as `numpy>=2`: paths and sources can't be built here"
    return ""
