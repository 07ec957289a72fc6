"""Where this machine's Trellis is and with which key: arguments over environment over files.

A credential never travels to a URL from a less trusted place: a key that a file holds is used for that file's URL
alone, and the file that `trellis up` left in its home (`.trellis` here) is taken whole or not at all.
"""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trellis.settings import SettingsError

DEFAULT_URL = "http://127.0.0.1:8420"
# Where `trellis up` keeps things when the working directory is closed to the account that it runs as.
MACHINE_HOME = Path("/var/lib/trellis")


@dataclass(frozen=True, slots=True)
class Profile:
    """A server and the API key for it; `key_id` lets `logout` withdraw the key."""

    url: str
    api_key: str | None = None
    key_id: str | None = None


def environment() -> Mapping[str, str]:
    """The process's variables: read here, at the entry of a program that uses the client, and handed down."""
    return os.environ


def user_file(env: Mapping[str, str]) -> Path:
    """Where `trellis login` keeps the profile."""
    base = env.get("XDG_CONFIG_HOME") or Path(env.get("HOME") or Path.home()) / ".config"
    return Path(base) / "trellis" / "config.json"


def resolve(
    env: Mapping[str, str],
    directory: Path,
    url: str | None = None,
    api_key: str | None = None,
    has_password: bool = False,
) -> Profile:
    """The profile to use. `url` and `api_key` are the caller's own and come first; so does a password.

    Raises: SettingsError for a file that can't be read.
    """
    url = url or env.get("TRELLIS_URL")
    api_key = api_key or env.get("TRELLIS_API_KEY") or _from_key_file(env)
    saved = read(user_file(env))
    if saved and (url is None or _same(url, saved.url)):
        return Profile(saved.url, api_key, None) if api_key else saved
    local = None if saved else _local(env, directory)
    if local and api_key is None and not has_password and (url is None or _same(url, local.url)):
        return local
    return Profile(url or DEFAULT_URL, api_key)


def read(path: Path) -> Profile | None:
    """The profile in a file, or None where there is no file. Raises SettingsError for one that can't be read."""
    try:
        stored: Any = json.loads(path.read_text())
        return Profile(str(stored["url"]), stored.get("api_key"), stored.get("key_id"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{path} is damaged: delete it and run `trellis login` again") from error


def write(path: Path, profile: Profile) -> None:
    """Keep the profile where its owner alone can read it; it is whole or absent at every moment."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(asdict(profile), file, indent=2)
    fresh.replace(path)


def _local(env: Mapping[str, str], directory: Path) -> Profile | None:
    """What `trellis up` left for commands on this machine, sought where it would look for its home."""
    homes = [folder / ".trellis" for folder in (directory, *directory.parents)] + [MACHINE_HOME]
    if env.get("TRELLIS_HOME"):
        homes = [Path(env["TRELLIS_HOME"])]
    files = (home / "client.json" for home in homes)
    return next((read(file) for file in files if _may_trust(file)), None)


def _may_trust(file: Path) -> bool:
    """Whether a file may be read and is the caller's own or root's: not one that a stranger put into, say, /tmp."""
    try:
        return file.stat().st_uid in (0, os.geteuid()) and os.access(file, os.R_OK)
    except OSError:
        return False


def _from_key_file(env: Mapping[str, str]) -> str | None:
    path = env.get("TRELLIS_API_KEY_FILE")
    if not path:
        return None
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise SettingsError(f"TRELLIS_API_KEY_FILE names {path}, which can't be read: {error.strerror}") from error


def _same(one: str, other: str) -> bool:
    return one.rstrip("/") == other.rstrip("/")
