from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.platform import Platform, running
from tests.support.services import wait_until
from tests.support.witness import BASIC, Witness

SHORT = {"TRELLIS_HEARTBEAT_S": "0.5", "TRELLIS_LEASE_S": "3", "TRELLIS_NODE_LOST_S": "8.5"}


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with running(nodes=2, TRELLIS_CPUS="4", **SHORT, **BASIC) as found:
        yield found


def state_of(platform: Platform, node: str) -> str:
    return next(found.state for found in platform.client.nodes.list() if found.name == node)


def test_a_silent_nodes_job_is_dead_before_it_is_tried_elsewhere_and_its_late_reports_change_nothing(
    platform: Platform,
) -> None:
    witness = Witness(platform.folder / "witness")
    witness.prepare()
    job = platform.client.jobs.submit(command=witness.ticking("long", 600, then=0.5))
    platform.wait_state(job, "running")
    (first,) = platform.client.jobs.get(job, verbose=True).attempts
    node = str(first.replicas[0].node)
    worker = psutil.Process(platform.pid(node))
    worker.suspend()
    try:
        ended = platform.ended(job)
    finally:
        worker.resume()
    assert (ended.state, ended.attempt) == ("succeeded", 2)
    old, new = (
        [mark for mark in witness.marks("long") if mark.fence == fence]
        for fence in sorted({a.fence for a in ended.attempts})
    )
    assert old[-1].at < new[0].at
    assert [mark.verb for mark in (old[0], old[-1], new[0], new[-1])] == ["start", "tick", "start", "end"]
    by_number = {attempt.number: attempt for attempt in ended.attempts}
    assert (by_number[1].state, by_number[1].cause) == ("lost", "node_lost")
    assert by_number[2].replicas[0].node != node

    wait_until(lambda: state_of(platform, node) == "ready", 30, "the node to come back")
    replicas = Path(platform.home / "nodes" / node / "replicas")
    wait_until(lambda: not any(replicas.iterdir()), 30, "the node to have told its stale story")
    assert platform.client.jobs.get(job, verbose=True) == ended
    assert witness.counts("start") == {"long": 2}
    assert all(found.cpu_milli_used == 0 for found in platform.client.nodes.list())


def test_a_node_whose_worker_never_comes_back_has_killed_its_job_by_itself(platform: Platform) -> None:
    witness = Witness(platform.folder / "witness-2")
    witness.prepare()
    job = platform.client.jobs.submit(command=witness.ticking("orphan", 600, then=0.5))
    platform.wait_state(job, "running")
    (first,) = platform.client.jobs.get(job, verbose=True).attempts
    (process,) = platform.processes_of(job)
    with platform.unattended():
        platform.kill(str(first.replicas[0].node))
        wait_until(lambda: not process.is_running() or process.status() == "zombie", 15, "the job to be ended")
        ended = platform.ended(job)
    assert (ended.state, ended.attempt) == ("succeeded", 2)
    attempts = {fence: [m for m in witness.marks("orphan") if m.fence == fence] for fence in (1, 2)}
    assert attempts[1][-1].at < attempts[2][0].at
    platform.wait_running(str(first.replicas[0].node))
