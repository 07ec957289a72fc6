"""Placing on clusters of a few nodes: who went where."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from scheduler.backfill import Guard
from scheduler.capacity import NO_SETTING, Setting
from scheduler.gang import place_gang
from scheduler.ledger import Ledger
from scheduler.placement.rooms import Grant
from scheduler.snapshot import Constraints, JobClass, Labels, Node, Request, Role
from tests.support.clusters import a_node, a_request


def a_kind(
    *requests: Request,
    constraints: Constraints | None = None,
    least: int = 1,
    most: int = 0,
    labels: Labels = (),
    project: str = "p",
) -> JobClass:
    """Return a class with one role for each request, of `least` to `most` replicas."""
    roles = tuple(Role(request, least, max(least, most)) for request in requests or (a_request(),))
    return JobClass(project, "q", roles, constraints=constraints or Constraints(), labels=labels)


def partly(name: str, *free: int, model: str = "h100", cpus: int = 8) -> Node:
    """Return a node with so many milli free on each of its devices."""
    return replace(a_node(name, gpus=len(free), model=model, cpus=cpus), gpu_milli_free=free)


def placed(ledger: Ledger, job_class: JobClass) -> list[str]:
    """Place a gang and return the names of its replicas' nodes; empty where it found no room."""
    grants = place_gang(ledger, job_class, Guard((), inf))
    needed = sum(role.least for role in job_class.roles)
    return names(ledger, grants) if len(grants) == needed else []


def names(ledger: Ledger, grants: Sequence[Grant]) -> list[str]:
    """Return the names of the grants' nodes."""
    return [ledger.nodes[grant.number].name for grant in grants]


def chosen(
    nodes: Sequence[Node], job_class: JobClass, setting: Setting = NO_SETTING
) -> tuple[str, tuple[tuple[int, int], ...]] | None:
    """Return node and devices that one replica gets, None where it finds no room."""
    ledger = Ledger(nodes, setting)
    grants = place_gang(ledger, job_class, Guard((), inf))
    return (ledger.nodes[grants[0].number].name, grants[0].gpus) if grants else None
