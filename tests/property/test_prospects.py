"""Never is said of those, and of those only, that do not even fit into an empty cluster."""

from dataclasses import replace
from math import inf
from random import Random

from hypothesis import given

from scheduler.backfill import Guard
from scheduler.capacity import Setting
from scheduler.gang import needed, place_gang
from scheduler.ledger import Ledger
from scheduler.plan import Reason
from scheduler.prospects import Prospects
from scheduler.snapshot import WHOLE, JobClass, Node
from tests.property.test_placement import LEVELS, POOLS, SEEDS, a_class, a_node
from tests.support.examples import CHEAP


def emptied(node: Node) -> Node:
    devices = range(len(node.gpu_milli_free))
    return replace(
        node,
        ready=True,
        cpu_milli_free=node.cpu_milli,
        memory_bytes_free=node.memory_bytes,
        gpu_milli_free=tuple(0 if device in node.partitioned else WHOLE for device in devices),
    )


def fits(nodes: list[Node], job_class: JobClass, within: frozenset[int] | None) -> bool:
    ledger = Ledger(nodes, Setting(LEVELS, POOLS))
    return len(place_gang(ledger, job_class, Guard((), inf, within))) == needed(job_class)


@given(SEEDS)
@CHEAP
def test_never_is_said_of_what_does_not_fit_into_an_empty_cluster(seed: int) -> None:
    random = Random(seed)
    nodes = [a_node(random, number) for number in range(random.randint(1, 8))]
    within = random.choice((None, frozenset(number for number in range(len(nodes)) if random.random() < 0.5)))
    job_class = a_class(random)
    because = Prospects(Ledger(nodes, Setting(LEVELS, POOLS))).why_never(job_class, within)
    alone = len(job_class.roles) == 1 and not job_class.constraints.affinities
    if because is not None and because[0] is Reason.NEVER_FITS:
        assert not fits([emptied(node) for node in nodes], job_class, within)
    elif alone and within is None:
        # Roles beside each other, or near to others, may be too many together though each by itself is not.
        assert fits([emptied(node) for node in nodes], job_class, within)
    if because is not None and because[0] is Reason.NO_NODES:
        assert not fits([replace(emptied(node), ready=node.ready) for node in nodes], job_class, within)
