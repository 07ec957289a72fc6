"""Other clusters whose checkpoints may be gone on from here: those that the operator has named, and no others."""

import re
from dataclasses import dataclass

from trellis.settings import SettingsError
from trellis.stores.base import Store
from trellis.stores.urls import open_store

_ENTRY = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]{0,62})=(?P<key>[0-9a-f]{64})@(?P<url>\S+)")
_SETTING = "TRELLIS_TRUSTED_CLUSTERS"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Its name here, where its store is reached from here, and the key that its manifests and tickets are signed with."""

    name: str
    public_key: str
    url: str
    store: Store


def read_clusters(text: str) -> dict[str, Cluster]:
    """By public key, what a setting such as `north=<key>@s3://north/store south=<key>@file:///mnt/south` names.

    Raises: SettingsError for what names no cluster, and where two have one name or one key.
    """
    found: dict[str, Cluster] = {}
    for entry in text.split():
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise SettingsError(
                f"{_SETTING}: {entry[:200]!r} must be NAME=KEY@URL, as `trellis checkpoints key` prints it"
            )
        try:
            cluster = Cluster(match["name"], match["key"], match["url"], open_store(match["url"]))
        except (ValueError, ModuleNotFoundError) as error:
            raise SettingsError(f"{_SETTING}: {match['name']}: {error}") from error
        if cluster.public_key in found or any(cluster.name == other.name for other in found.values()):
            raise SettingsError(f"{_SETTING}: the name or the key of {cluster.name} comes twice")
        found[cluster.public_key] = cluster
    return found
