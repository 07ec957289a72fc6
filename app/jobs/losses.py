"""Replicas that are gone with their nodes, or that their nodes know nothing of any more."""

from collections.abc import Collection, Mapping
from uuid import UUID

from sqlalchemy import func, select

from app.core.access import Permission
from app.core.uow import UnitOfWork
from app.jobs.attempts import Family, follow
from app.jobs.models import Job, Replica
from app.jobs.suspensions import count_parked
from app.resources.allocations import lock_nodes, release
from app.resources.models import Node
from trellis.errors import Conflict
from trellis.vocabulary import (
    ENDED_REPLICA_STATES,
    LIVING_NODE_STATES,
    Cause,
    NodeState,
    OnNodeLost,
    ReplicaState,
)


class NotSilent(Conflict):
    """Only a node that says nothing is given up."""

    code = "not_silent"
    title = "No node of the job is silent"


def end_attempts_on(uow: UnitOfWork, gone: Mapping[str, Collection[Replica]]) -> None:
    """End live replicas of (locked) nodes that are gone or have lost them, by what is to be said of it.

    Their jobs are tried elsewhere. All of them are locked at once: what has several nodes locks jobs in one order.
    """
    family = Family.of_jobs(uow, {replica.job_id for replicas in gone.values() for replica in replicas})
    ended: dict[UUID, list[UUID]] = {}
    parked_on: set[UUID] = set()
    for message, replicas in gone.items():
        for known in replicas:
            replica = family.replicas.get(known.id)
            if replica is None or replica.state in ENDED_REPLICA_STATES:
                continue
            if replica.state is ReplicaState.SUSPENDED:
                parked_on.add(replica.node_id)
            replica.cause, replica.message = Cause.NODE_LOST, message
            uow.move(replica, ReplicaState.LOST, cause=str(Cause.NODE_LOST))
            ended.setdefault(known.node_id, []).append(replica.id)
            follow(uow, family, family.attempts[replica.attempt_id])
    for node_id, replica_ids in ended.items():
        release(uow, replica_ids, node_id)
    if parked_on:
        count_parked(uow, parked_on)


def end_attempts_on_lost_nodes(uow: UnitOfWork) -> None:
    """What our rows say still runs on nodes that are lost has ended with them."""
    held = select(Replica.node_id).where(Replica.ended_at.is_(None))
    lost = select(Node.id).where(Node.state == NodeState.LOST, Node.id.in_(held)).order_by(Node.id)
    locked = lock_nodes(uow, uow.session.execute(lost).scalars().all())
    nodes = {node.id: node for node in locked.values() if node.state is NodeState.LOST}
    # Who waits for its node does so until that is back, or somebody gives it up. What stands still has nothing to lose.
    parked = Replica.state == ReplicaState.SUSPENDED
    waits = Job.spec["on_node_lost"].astext == OnNodeLost.WAIT
    live = (
        select(Replica)
        .join(Job, Job.id == Replica.job_id)
        .where(Replica.node_id.in_(nodes), Replica.ended_at.is_(None), ~func.coalesce(waits, False) | parked)
        .order_by(Replica.id)
    )
    gone: dict[str, list[Replica]] = {}
    for replica in uow.session.execute(live).scalars():
        gone.setdefault(f"node {nodes[replica.node_id].name} fell silent", []).append(replica)
    end_attempts_on(uow, gone)


def give_up_node(uow: UnitOfWork, job_id: UUID, version: int | None, *, reason: str = "") -> Job:
    """Count what a job has on silent nodes as lost, without waiting for them any longer: it is tried elsewhere.

    What still runs there ends as soon as its node is heard of again. Raises: NotSilent.
    """
    job = uow.get(Job, job_id)
    uow.require(Permission.JOB_WRITE, job.project_id)
    live = select(Replica).where(Replica.job_id == job.id, Replica.ended_at.is_(None)).order_by(Replica.index)
    replicas = uow.session.execute(live).scalars().all()
    nodes = lock_nodes(uow, {replica.node_id for replica in replicas})  # nodes are locked before jobs
    silent = {node.id: node.name for node in nodes.values() if node.state not in LIVING_NODE_STATES}
    gone: dict[str, list[Replica]] = {}
    for replica in replicas:
        if replica.node_id in silent:
            said = f"node {silent[replica.node_id]} fell silent, and was given up"
            gone.setdefault(f"{said}: {reason}" if reason else said, []).append(replica)
    if not gone:
        raise NotSilent(f"job {job.id} waits for no node: `cancel` or `suspend` it")
    uow.expect_version(job, version)
    end_attempts_on(uow, gone)
    return uow.get(Job, job_id)
