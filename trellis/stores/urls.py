"""A store by its URL."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from trellis.stores.base import Store
from trellis.stores.local import LocalStore
from trellis.stores.objects import SCHEMES, ObjectStore

# Written by the control plane: where it is missing, a file system is not mounted or is another one.
SIGN = "trellis-store"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}")


def open_store(url: str, **options: Any) -> Store:
    """The store at `file:///folder`, `s3://bucket/prefix` or `gs://bucket/prefix`; nothing is looked up yet.

    `options` go to the provider's file system. Raises: ValueError for a URL that is none of these, or that holds a
    user, a password or a query: credentials come from the environment and appear in no log; ModuleNotFoundError where
    the provider's library is not installed.
    """
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("a store's URL holds no credentials and no query: those come from the environment")
    if parts.scheme == "file":
        path = Path(unquote(parts.path))
        if parts.netloc or not path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{url!r} must be file:/// and an absolute path")
        return LocalStore(path)
    if parts.scheme in SCHEMES:
        prefix = parts.path.strip("/")
        if not _BUCKET.fullmatch(parts.netloc) or ".." in prefix.split("/"):
            raise ValueError(f"{url!r} must be {parts.scheme}://bucket or {parts.scheme}://bucket/prefix")
        return ObjectStore(parts.scheme, f"{parts.netloc}/{prefix}" if prefix else parts.netloc, **options)
    known = ", ".join(f"{scheme}://" for scheme in ("file", *SCHEMES))
    raise ValueError(f"{url!r} is no store: its URL begins with one of {known}")


class StoreAway(OSError):
    """The store is not where its URL says."""


def open_existing(url: str) -> Store:
    """The store that the control plane uses at `url`. Raises StoreAway where there is none, another, or no way to it."""
    try:
        store = open_store(url)
    except (ModuleNotFoundError, ValueError) as error:
        raise StoreAway(str(error)) from error
    require_sign(store, url)
    return store


def require_sign(store: Store, url: str) -> None:
    """Raises StoreAway where the store is not (or no longer) the one that its control plane uses, OSError of the store."""
    try:
        there = store.head(SIGN)
    except NotADirectoryError as error:
        raise StoreAway(f"the store {url} is not a folder here") from error
    if there is None:
        raise StoreAway(f"the store {url} is not to be found here: it must be one place for all who use it")
