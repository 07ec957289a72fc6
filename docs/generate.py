"""Draws the pages of `docs/` that follow from the code: `make docs` writes them, a contract test compares them.

What is written here is never edited by hand: change the code it comes from, and run `make docs`.
"""

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from agent.settings import NodeSettings
from agent.simulation.settings import HostSettings
from app.core.access import EVERYBODY, PLATFORM, ROLE_PERMISSIONS, Permission
from app.core.events import ANNOUNCED, KINDS
from app.core.settings import Settings
from app.core.states import MACHINES, Machine
from app.factory import create_app
from app.http.problems import STATUS
from app.scheduling.cycle import WAKING
from tasks.reactions import REACTIONS
from tasks.settings import FlowerSettings
from trellis import wire
from trellis.errors import BY_CODE
from trellis.settings import BrokerSettings
from trellis.vocabulary import Role

ROOT = Path(__file__).resolve().parent
MADE = "Written by `make docs`; a test compares it with the code.\n"
PROCESSES: Mapping[str, Any] = {
    "API, control worker, `trellis server`": Settings,
    "Beat": BrokerSettings,
    "Flower": FlowerSettings,
    "Node": NodeSettings,
    "Host of simulated nodes": HostSettings,
}


def documents() -> dict[Path, str]:
    """Every page that follows from the code, by its place below `docs/`."""
    return {
        Path("states.md"): states(),
        Path("reference/settings.md"): settings(),
        Path("reference/events.md"): events(),
        Path("reference/errors.md"): errors(),
        Path("reference/permissions.md"): permissions(),
        Path("reference/wire.json"): wire_format(),
        Path("reference/openapi.json"): openapi(),
    }


def states() -> str:
    """The state machines as diagrams and tables."""
    intro = (
        "# States\n\n"
        "Drawn from `app/core/states.py`, which `UnitOfWork.move` obeys: a move that is not here is refused with "
        f"`illegal_transition`. Every move is an event `<noun>.<state>`. {MADE}"
    )
    return "\n".join([intro, *map(_machine, MACHINES.values())])


def _machine(machine: Machine) -> str:
    moves = [f"    {before} --> {after}" for before, afters in machine.moves.items() for after in sorted(afters)]
    ends = [f"    {state} --> [*]" for state in machine.moves if state in machine.ends]
    drawing = "\n".join(["```mermaid", "stateDiagram-v2", f"    [*] --> {machine.initial}", *moves, *ends, "```"])
    rows = (
        (
            f"`{state}`",
            _words(sorted(afters)) or "(ends here)",
            f"`{stamp}`" if (stamp := machine.stamps.get(state)) else "",
        )
        for state, afters in machine.moves.items()
    )
    return f"## {machine.noun.capitalize()}\n\n{drawing}\n\n{_table(('state', 'may become', 'stamps'), rows)}"


def settings() -> str:
    """Every environment variable of every process."""
    intro = (
        "# Settings\n\n"
        "How a process is wired, read once where it begins. Any of them can be given as a file: "
        "`TRELLIS_SECRET_KEY_FILE=/run/secrets/key` stands for the text of that file. "
        f"How the platform behaves is not here: that is policy, in the database. {MADE}"
    )
    return "\n".join([intro, *(_settings_of(who, kind) for who, kind in PROCESSES.items())])


def _settings_of(who: str, kind: Any) -> str:
    meanings = meanings_of(kind)
    rows = (
        (f"`TRELLIS_{f.name.upper()}`", _type_name(f.type), _default(f), meanings.get(f.name, "")) for f in fields(kind)
    )
    return f"## {who}\n\n{_table(('variable', 'type', 'default', 'meaning'), rows)}"


def meanings_of(kind: Any) -> dict[str, str]:
    """What the docstrings of a settings class and its bases say of each field, in lines such as `name: meaning`."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        text = inspect.cleandoc(base.__doc__ or "")
        for names, meaning in re.findall(r"^([a-z_]+(?:, [a-z_]+)*): (.+(?:\n    .+)*)", text, re.MULTILINE):
            found |= dict.fromkeys(names.split(", "), " ".join(meaning.split()))
    return found


def _default(field: Any) -> str:
    if field.default is MISSING:
        return "**must be set**"
    return f"`{field.default}`" if str(field.default) else ""


def _type_name(kind: Any) -> str:
    return kind if isinstance(kind, str) else str(kind.__name__)


def events() -> str:
    """Every kind of event and who hears of it."""
    intro = (
        "# Events\n\n"
        "An event is written in the transaction that made it true. Those with a task behind them are sent on by the "
        "relay after the commit (`tasks/reactions.py`); the others are history alone, to be read under "
        f"`GET /jobs/{{id}}/events`. {MADE}"
    )
    rows = (
        (
            f"`{kind}`",
            _words(to.task for to in REACTIONS.get(kind, ())) if kind in ANNOUNCED else "",
            "yes" if kind in WAKING else "",
        )
        for kind in sorted(KINDS)
    )
    return f"{intro}\n{_table(('kind', 'task that hears of it', 'makes a cycle due'), rows)}"


def errors() -> str:
    """Every error code with its status."""
    intro = (
        "# Errors\n\n"
        "Every error is `application/problem+json` (RFC 9457) with a stable `code`; the client raises the class of the "
        f"same name from `trellis.errors`. {MADE}"
    )
    rows = (
        (f"`{code}`", f"`{kind.__name__}`", str(status_of(kind)), kind.title, (kind.__doc__ or "").partition("\n")[0])
        for code, kind in sorted(BY_CODE.items())
    )
    return f"{intro}\n{_table(('code', 'class', 'HTTP status', 'title', 'when'), rows)}"


def status_of(kind: type[BaseException]) -> int:
    """The HTTP status that an error is answered with, by the nearest of its bases that has one."""
    return next((int(STATUS[base]) for base in kind.__mro__ if base in STATUS), 500)


def permissions() -> str:
    """Which role carries which permission."""
    intro = (
        "# Permissions\n\n"
        "What a role may do in its project. *Anybody* is whoever is signed in (rows are still filtered one by one); a "
        f"platform administrator may do everything, and a node may report of its own replicas. {MADE}"
    )
    roles = tuple(Role)
    rows = (
        (
            f"`{permission}`",
            "yes" if permission in EVERYBODY else "",
            *("yes" if permission in ROLE_PERMISSIONS[role] else "" for role in roles),
            "only" if permission in PLATFORM else "yes",
        )
        for permission in Permission
        if permission is not Permission.REPLICA_REPORT
    )
    heads = ("permission", "anybody", *(str(role).replace("_", " ") for role in roles), "platform admin")
    return f"{intro}\n{_table(heads, rows)}"


def wire_format() -> str:
    """What crosses between control plane and nodes: each dataclass with its fields and their types."""
    shapes = {
        kind.__name__: {name: _plain(hint) for name, hint in get_type_hints(kind).items()} for kind in _kinds(wire)
    }
    return _json({"version": wire.VERSION, "types": shapes})


def _kinds(module: ModuleType) -> Iterator[type]:
    for _, kind in inspect.getmembers(module, inspect.isclass):
        if kind.__module__ == module.__name__:
            yield kind


def _plain(hint: Any) -> str:
    text = hint.__name__ if isinstance(hint, type) and not getattr(hint, "__args__", ()) else str(hint)
    return re.sub(r"\b(?:\w+\.)+", "", text)


def openapi() -> str:
    """The OpenAPI document, as the server gives it out."""
    wiring = Settings(
        "postgresql://nobody@127.0.0.1:1/none", "redis://127.0.0.1:1/0", "a key that signs nothing at all here"
    )
    answer = create_app(wiring).test_client().get("/api/v1/openapi.json")
    return _json(answer.get_json())


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _words(words: Iterable[object]) -> str:
    return " ".join(f"`{word}`" for word in words)


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [tuple(heads)]
    lines += [("---",) * len(lines[0]), *map(tuple, rows)]
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines)


def main() -> None:
    """Write every page."""
    for place, text in documents().items():
        (ROOT / place).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / place).write_text(text)


if __name__ == "__main__":
    main()
