import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.island import island
from tests.support.platform import Platform, running
from tests.support.services import wait_until
from tests.support.witness import BASIC, Witness
from trellis.answers import Job

SHORT = {"TRELLIS_HEARTBEAT_S": "0.5", "TRELLIS_LEASE_S": "3", "TRELLIS_NODE_LOST_S": "8.5"}


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with running(nodes=2, TRELLIS_CPUS="4", **SHORT, **BASIC) as found:
        yield found


def place_of(platform: Platform, job: Job) -> str:
    attempts = platform.client.jobs.get(job, verbose=True).attempts
    return str(max(attempts, key=lambda one: one.number).replicas[0].node)


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


def test_a_node_that_is_cut_off_for_a_moment_keeps_its_job_and_for_longer_loses_it_before_it_is_tried_elsewhere(
    platform: Platform,
) -> None:
    witness = Witness(platform.folder / "witness-3")
    witness.prepare()
    with island(platform, "island") as cut_off:
        wait_until(lambda: state_of(platform, cut_off.node) == "ready", 30, "the island to be known")
        short, long = (
            platform.client.jobs.submit(
                name=name, command=witness.ticking(name, seconds, then=0.5),
                constraints={"prefers": [{"label": "name", "operator": "in", "values": [cut_off.node], "weight": 100}]},
            )
            for name, seconds in (("short", 6), ("long", 600))
        )  # fmt: skip
        wait_until(lambda: witness.counts("start").keys() == {"short", "long"}, 30, "both to run")
        assert {place_of(platform, job) for job in (short, long)} == {cut_off.node}
        cut_off.cut()
        time.sleep(1.8)  # of the 3 s for which the node's lease holds
        cut_off.mend()
        ended = platform.ended(short)
        assert (ended.state, ended.attempt) == ("succeeded", 1)
        assert platform.client.jobs.get(long).attempt == 1
        cut_off.cut()
        ended = platform.ended(long)
        assert (ended.state, ended.attempt) == ("succeeded", 2)
        old, new = ([mark for mark in witness.marks("long") if mark.attempt == number] for number in (1, 2))
        assert old[-1].at < new[0].at
        assert place_of(platform, long) != cut_off.node
        cut_off.mend()
        wait_until(lambda: state_of(platform, cut_off.node) == "ready", 30, "the island to be back")
        assert platform.client.jobs.get(long, verbose=True) == ended
    assert witness.counts("start") == {"short": 1, "long": 2}
