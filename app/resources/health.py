"""What nodes find out about their own health, and which of them, and of their devices, are kept from work for that."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from app.core.uow import UnitOfWork
from app.resources.allocations import lock_nodes
from app.resources.models import Gpu, Node
from app.resources.standing import Quarantine, settle, stored
from trellis.vocabulary import LIVING_NODE_STATES, QuarantinedBy, Severity
from trellis.wire import Finding, Heartbeat

# A clock that is off by more makes logs and metrics of its node hard to read: leases do not depend on it.
SKEW = timedelta(seconds=30)
# So many rounds in a row must find nothing before what was found counts as over.
GOOD_ROUNDS = 3
# A fault that shows only when work is placed can't be looked for: for so long, doubled each time, none is.
TRIAL = timedelta(minutes=5)
MOST_DOUBLINGS = 5
# The platform keeps at most one node in so many from work by itself: more at once is more likely its own fault.
ONE_IN = 5
# Those that end when somebody says so, or when the fault is gone: nothing weaker takes their place.
_LASTING = frozenset({QuarantinedBy.OPERATOR, QuarantinedBy.HEALTH})


def is_news(row: Any, beat: Heartbeat, now: datetime) -> bool:
    """Whether a heartbeat says anything of its node's health that was not said before; `row` is what is kept of that."""
    if beat.hooks:
        return True
    if beat.checkup is None or beat.checkup.number == row.checkup:
        return False
    skewed = _skew(beat, now) is not None
    return bool(beat.checkup.findings or row.findings or row.quarantine or row.faulty or skewed)


def take_in(uow: UnitOfWork, beats: Mapping[UUID, Heartbeat]) -> None:
    """Note what these nodes found, and draw the conclusions."""
    nodes = lock_nodes(uow, beats)
    devices: dict[UUID, list[Gpu]] = {node_id: [] for node_id in nodes}
    rows = select(Gpu).where(Gpu.node_id.in_(nodes)).order_by(Gpu.id)
    for gpu in uow.session.execute(rows.execution_options(populate_existing=True)).scalars():
        devices[gpu.node_id].append(gpu)
    for node_id, node in nodes.items():
        _note_hooks(uow, node, beats[node_id])
        if beats[node_id].checkup is not None:
            findings = _findings(beats[node_id], uow.clock.now())
            _note_findings(uow, node, findings)
            _judge_node(uow, node, findings)
            _judge_devices(uow, node, devices[node_id], findings)


def distrust(uow: UnitOfWork, node: Node, by: QuarantinedBy, reason: str, said: str = "") -> bool:
    """Keep a (locked) node from work that failed for a reason of its own; whether it is now.

    Not where an operator has, or its health does, nor where too many are already: then only what was found is told.
    Everybody may read the reason; what a job or an operator's program `said` is told in the node's events alone.
    """
    known, told = Quarantine.read(node.quarantine), f"{reason}: {said}" if said else reason
    if known is not None and (known.by in _LASTING or known.reason == reason):
        return True
    if known is None and not _may_quarantine(uow):
        uow.emit("node.health_changed", node, findings=[{"check": str(by), "message": told}], doubted=True)
        return False
    now = uow.clock.now()
    until = None if by is QuarantinedBy.HEALTH else now + TRIAL * 2 ** min(node.quarantines, MOST_DOUBLINGS)
    node.quarantine = stored(Quarantine(known.since if known else now, reason, by, until))
    if known is None:
        node.quarantines += 1
    settle(uow, node, {"by": str(by)}, told)
    return True


def living_nodes(uow: UnitOfWork) -> int:
    """How many nodes live."""
    return int(uow.session.execute(select(func.count()).where(Node.state.in_(LIVING_NODE_STATES))).scalar_one())


def nodes_with_faults(uow: UnitOfWork) -> set[UUID]:
    """The nodes of which some device is in quarantine."""
    return set(uow.session.execute(select(Gpu.node_id).where(Gpu.quarantine.is_not(None))).scalars())


def _may_quarantine(uow: UnitOfWork) -> bool:
    ordered = Node.quarantine["by"].astext != QuarantinedBy.OPERATOR
    count = select(func.count()).where(Node.state.in_(LIVING_NODE_STATES), Node.quarantine.is_not(None), ordered)
    return int(uow.session.execute(count).scalar_one()) < max(1, living_nodes(uow) // ONE_IN)


def _findings(beat: Heartbeat, now: datetime) -> list[Finding]:
    found = list(beat.checkup.findings) if beat.checkup else []
    if (skew := _skew(beat, now)) is not None:
        found.append(Finding("clock", Severity.WARNING, f"its clock is {abs(skew).total_seconds():.0f} s off"))
    return found


def _skew(beat: Heartbeat, now: datetime) -> timedelta | None:
    """By how much a node's clock is off, where that is too much."""
    try:
        skew = datetime.fromisoformat(beat.at) - now
    except (ValueError, TypeError):  # none was told, or one without a zone
        return None
    return skew if abs(skew) > SKEW else None


def _note_findings(uow: UnitOfWork, node: Node, findings: Sequence[Finding]) -> None:
    now = uow.clock.now().isoformat()
    since = {(one["check"], one["device"]): one["since"] for one in node.findings}
    found = [
        {"check": one.check, "severity": str(one.severity), "message": one.message, "device": one.device,
         "since": since.get((one.check, one.device), now)}
        for one in findings
    ]  # fmt: skip
    before, after = _kinds(node.findings), _kinds(found)
    node.findings = found
    if before != after:
        node.version += 1
        uow.emit("node.health_changed", node, findings=found)


def _kinds(found: Collection[Mapping[str, Any]]) -> set[tuple[str, str, int | None]]:
    """Without what is said of them, which changes with every look."""
    return {(one["check"], one["severity"], one["device"]) for one in found}


def _judge_node(uow: UnitOfWork, node: Node, findings: Sequence[Finding]) -> None:
    bad = [one for one in findings if one.device is None and one.severity is Severity.BAD]
    known = Quarantine.read(node.quarantine)
    if bad:
        _distrust_for_health(uow, node, known, f"{bad[0].check}: {bad[0].message}")
    elif known is not None and known.by is not QuarantinedBy.OPERATOR:
        later = _one_round_on(known, uow.clock.now())
        node.quarantine = stored(later) if later else None
        if later is None:
            settle(uow, node, {"quarantined": False}, "its health checks find nothing any more")


def _distrust_for_health(uow: UnitOfWork, node: Node, known: Quarantine | None, reason: str) -> None:
    if known is None:
        distrust(uow, node, QuarantinedBy.HEALTH, reason)
    elif known.by is not QuarantinedBy.OPERATOR:
        node.quarantine = stored(replace(known, by=QuarantinedBy.HEALTH, reason=reason, good=0))
        if known.by is not QuarantinedBy.HEALTH:  # from now on what runs there is in danger, too
            settle(uow, node, {"by": str(QuarantinedBy.HEALTH)}, reason)


def _judge_devices(uow: UnitOfWork, node: Node, gpus: Sequence[Gpu], findings: Sequence[Finding]) -> None:
    bad = {one.device: one for one in reversed(findings) if one.severity is Severity.BAD and one.device is not None}
    changed = False
    for gpu in gpus:
        known, finding = Quarantine.read(gpu.quarantine), bad.get(gpu.index)
        if known is not None and known.by is QuarantinedBy.OPERATOR:
            continue
        wanted = _after(known, finding, uow.clock.now())
        gpu.quarantine = stored(wanted) if wanted else None
        changed |= (known is None) != (wanted is None)
    if changed:
        node.version += 1
        kept = sorted(gpu.index for gpu in gpus if gpu.quarantine)
        uow.emit("node.changed", node, reason="the health of its devices changed", quarantined_devices=kept)


def _after(known: Quarantine | None, finding: Finding | None, now: datetime) -> Quarantine | None:
    """What holds of a device after a round that found this of it."""
    if finding is None:
        return _one_round_on(known, now) if known else None
    reason = f"{finding.check}: {finding.message}"
    if known is None:
        return Quarantine(now, reason, QuarantinedBy.HEALTH)
    return replace(known, reason=reason, good=0)


def _one_round_on(known: Quarantine, now: datetime) -> Quarantine | None:
    """What is left of a quarantine after one more round that found nothing."""
    good = known.good + 1
    over = good >= GOOD_ROUNDS and (known.until is None or known.until <= now)
    return None if over else replace(known, good=good)


def _note_hooks(uow: UnitOfWork, node: Node, beat: Heartbeat) -> None:
    for run in beat.hooks:
        told = {"hook": run.hook, "output": run.output, "replica_id": run.replica_id}
        if run.ok:
            uow.emit("node.hook_ran", node, **told)
        else:
            uow.emit("node.hook_failed", node, **told)
            distrust(uow, node, QuarantinedBy.HOOK, f"{run.hook} failed", run.output[:200])
