"""What a first start asks of the platform, and what it is given: the words between the supervisor and `app.cli.bootstrap`."""

from dataclasses import dataclass

ADMIN = "admin"
"""What the administrator of a first start is called."""


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
