"""Brings the database to the present schema and hands out what the first start needs.

Run as a process of its own (`python -m app.cli.bootstrap`), so that the supervisor, which lives as long as the stack,
never loads the platform. Reads one JSON object from standard input and writes one to standard output: neither
passwords nor tokens are ever arguments.
"""

import json
import sys
from dataclasses import asdict, dataclass

ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Wish:
    """nodes: names that need a join token. client_key: whether the local commands need an API key."""

    nodes: tuple[str, ...]
    client_key: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """What was made. password: only when the administrator was made just now; nobody can read it again."""

    password: str | None
    api_key: str | None
    join_tokens: dict[str, str]


def bootstrap(wish: Wish) -> Grant:
    """All steps in order; each is safe to repeat."""
    migrate()
    password = ensure_admin()
    return Grant(
        password=password,
        api_key=admin_api_key() if wish.client_key else None,
        join_tokens={name: join_token(name) for name in wish.nodes},
    )


def migrate() -> None:
    """Bring the schema to the newest revision."""
    raise NotImplementedError


def ensure_admin() -> str | None:
    """Make the first administrator, once; the random password when it was made now."""
    raise NotImplementedError


def admin_api_key() -> str:
    """A new API key of the administrator for the commands on this machine."""
    raise NotImplementedError


def join_token(node: str) -> str:
    """A token with which the node of that name may join."""
    raise NotImplementedError


def main() -> None:
    """Entry of the process."""
    asked = json.load(sys.stdin)
    grant = bootstrap(Wish(tuple(asked["nodes"]), bool(asked["client_key"])))
    json.dump(asdict(grant), sys.stdout)


if __name__ == "__main__":
    main()
