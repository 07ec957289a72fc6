"""How any process of the platform learns how it is wired: environment over file over default."""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar


class SettingsError(Exception):
    """A setting is missing or can't be read; the message names it and says what to do."""


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


S = TypeVar("S", bound=_Dataclass)


def load(kind: type[S], env: Mapping[str, str], file: Path | None = None) -> S:
    """Fill the frozen dataclass `kind`: field `database_url` from `TRELLIS_DATABASE_URL`, or from the file
    that `TRELLIS_DATABASE_URL_FILE` names, or from key `database_url` of the TOML `file`, or its default.

    Raises: SettingsError for one that is missing or of the wrong type.
    """
    stored = tomllib.loads(file.read_text()) if file and file.exists() else {}
    return kind(**{field.name: _value(field, env, stored) for field in fields(kind)})


def names(kind: type[S]) -> frozenset[str]:
    """The environment variables that `kind` listens to."""
    return frozenset(f"TRELLIS_{field.name.upper()}{suffix}" for field in fields(kind) for suffix in ("", "_FILE"))


def _value(field: Field[Any], env: Mapping[str, str], stored: Mapping[str, Any]) -> Any:
    name = f"TRELLIS_{field.name.upper()}"
    text: Any = env.get(name)
    if text is None and (path := env.get(f"{name}_FILE")):
        try:
            text = Path(path).read_text().strip()
        except OSError as error:
            raise SettingsError(f"{name}_FILE names {path}, which can't be read: {error.strerror}") from error
    if text is None:
        text = stored.get(field.name)
    if text is None:
        if field.default is MISSING:
            raise SettingsError(f"{name} is not set, and there is no default for it")
        return field.default
    return _convert(name, field.type, text)


def _convert(name: str, kind: Any, text: Any) -> Any:
    word = kind if isinstance(kind, str) else kind.__name__
    try:
        if word == "int":
            return int(text)
        if word == "float":
            return float(text)
        if word == "bool":
            return {"1": True, "true": True, "0": False, "false": False}[str(text).lower()]
        if word == "Path":
            return Path(text)
    except (ValueError, KeyError) as error:
        raise SettingsError(f"{name} must be of type {word}, not {text!r}") from error
    return str(text)


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """What every Celery process needs.

    broker_url: Redis 7, Valkey or RabbitMQ, such as `redis://:secret@10.0.0.5:6379/0` or `amqp://...`.
    """

    broker_url: str
