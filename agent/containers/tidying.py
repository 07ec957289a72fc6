"""Containers of this node that belong to nobody any more."""

import logging

from agent.containers import enclosure
from agent.containers.body import FENCE, HOME, REPLICA
from agent.containers.engine import Engine, EngineError, EngineGone
from agent.ground import Ground
from agent.journal import read

_log = logging.getLogger(__name__)


def remove_orphans(ground: Ground) -> None:
    """Remove every container that a node of this home left and that none of its replicas has to tell of.

    One whose replica has not told its end is left to be taken up.
    """
    if not ground.site.socket:
        return
    engine = Engine(ground.site.socket)
    try:
        for found in engine.list(f"{HOME}={ground.home_path}"):
            if _is_orphan(ground, found["Labels"]):
                engine.remove(found["Id"])
        enclosure.leave(ground.site.hierarchies, ground.home_path)
    except (EngineError, EngineGone) as error:
        _log.warning("could not look for containers that were left behind: %s", error)


def _is_orphan(ground: Ground, labels: dict[str, str]) -> bool:
    replica = ground.home.replica(labels[REPLICA], int(labels[FENCE]))
    if replica.alive():
        return False
    told = read(replica.journal, 0)
    return not replica.container.exists() or not told or told[-1].ended
