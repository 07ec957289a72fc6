"""Two hundred nodes that are not there, under the platform as it is."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.platform import Platform, running
from tests.support.services import wait_until
from trellis.answers import Job

NODES, DEVICES, SLICED = 200, 8, 2
PROFILE = f"""
clusters:
  - domains: {{zone: north}}
    nodes:
      - {{name: dgx, count: {NODES}, gpus: {DEVICES}, gpu_type: H100, cpu_cores: 96, memory_gb: 2048, rack_of: 20,
          labels: {{disk: nvme}}}}
      - {{name: cut, count: {SLICED}, gpus: 1, gpu_type: A100, partitioned: 1, cpu_cores: 8, memory_gb: 64}}
simulation:
  speed: 60
  seed: 7
  jobs:
    - {{name: "flaky-*", run_time: 1m, fails: {{exit_code: 0.5}}}}
    - {{name: "*", run_time: 2m, steps: 4, metrics: {{loss: {{from: 2.5, to: 0.2}}}}}}
"""


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with running(simulation=PROFILE) as found:
        yield found


def submit(platform: Platform, count: int, name: str, **body: Any) -> list[Job]:
    jobs = [{"command": ["true"], "name": f"{name}-{number}", **body} for number in range(count)]
    return list(platform.client.jobs.submit_batch(jobs))  # type: ignore[arg-type]  # a TypedDict, spelled as a dict


def ended(platform: Platform, jobs: list[Job]) -> list[Job]:
    """The jobs, once all have ended."""
    for job in jobs:
        platform.client.jobs.wait(job, timeout=120)
    return [platform.client.jobs.get(job, verbose=True) for job in jobs]


def assert_nothing_is_held(platform: Platform) -> None:
    nothing = {"cpu_milli": 0, "memory_bytes": 0, "gpu_milli": 0}
    kinds = [(kind.nodes, kind.nodes_ready, dict(kind.held)) for kind in platform.client.nodes.kinds()]
    assert kinds == [(NODES, NODES, nothing), (SLICED, SLICED, nothing)]


def test_the_nodes_are_as_the_profile_says(platform: Platform) -> None:
    nodes = {node.name: node for node in platform.client.nodes.list()}
    node = nodes["dgx-21"]
    assert len(nodes) == NODES + SLICED
    assert (node.cpu_milli, len(node.gpus), dict(node.domains)) == (96_000, 8, {"zone": "north", "rack": "dgx-rack-2"})
    assert (node.labels["disk"], node.labels["executor"]) == ("nvme", "simulated")
    assert f"{NODES + SLICED} of {NODES + SLICED} nodes have joined" in platform.said
    assert "try next" in platform.said


def test_hundreds_of_jobs_gangs_among_them_are_played_to_their_end(platform: Platform) -> None:
    singles = submit(platform, 300, "single", resources={"cpus": 8, "gpus": 1})
    gangs = submit(platform, 20, "gang", resources={"cpus": 64, "gpus": 8}, replicas=4)
    assert Counter(job.state for job in ended(platform, singles + gangs)) == {"succeeded": 320}
    members = [replica.node for replica in platform.client.jobs.get(gangs[0], verbose=True).attempts[0].replicas]
    assert len(set(members)) == 4
    lines = [line for line in platform.lines(gangs[0]) if line.startswith("step 4 of 4 loss")]
    assert len(lines) == 4
    assert platform.client.jobs.metrics(singles[0].id)["loss"].step == 4
    assert_nothing_is_held(platform)


def test_roles_and_slices_are_played_as_any_other_job_is(platform: Platform) -> None:
    each = {"cpus": 2, "memory": "1GiB"}
    roles = [
        {"name": "driver", "resources": each, "command": ["drive"]},
        {"name": "worker", "resources": {**each, "mig_profile": "3g.40gb"}, "replicas": 3},
    ]
    (job,) = ended(platform, submit(platform, 1, "roles", roles=roles))
    assert job.state == "succeeded"
    placed = [(replica.role, str(replica.node).partition("-")[0]) for replica in job.attempts[0].replicas]
    assert [node for role, node in placed if role == "worker"] == ["cut"] * 3
    assert len(placed) == 4
    whole = ended(platform, submit(platform, SLICED, "whole", resources={**each, "mig_profile": "7g.80gb"}))
    assert [one.state for one in whole] == ["succeeded"] * SLICED
    assert_nothing_is_held(platform)


def test_what_fails_by_the_profile_fails_with_its_cause_or_is_tried_again(platform: Platform) -> None:
    jobs = ended(platform, submit(platform, 60, "flaky", resources={"gpus": 1}, retries={"limit": 0}))
    causes = Counter((job.state, job.cause, job.exit_code) for job in jobs)
    assert set(causes) == {("succeeded", None, 0), ("failed", "exit_code", 1)}
    assert 15 <= causes["failed", "exit_code", 1] <= 45
    assert_nothing_is_held(platform)


def test_a_job_says_how_it_is_to_be_played_and_is_ended_when_it_is_cancelled(platform: Platform) -> None:
    wishes = {"SIMULATE_RUN_TIME": "10h"}
    (job,) = submit(platform, 1, "long", environment=wishes, resources={"gpus": 8})
    platform.wait_state(job, "running")
    platform.client.jobs.cancel(job)
    assert platform.ended(job).state == "cancelled"
    late = platform.run_job("true", environment=wishes, time_limit="1s")
    assert (late.state, late.cause) == ("timed_out", "time_limit")
    assert_nothing_is_held(platform)


def test_a_host_that_is_killed_goes_on_with_what_it_played(platform: Platform) -> None:
    jobs = submit(platform, 40, "through", environment={"SIMULATE_RUN_TIME": "12m"}, resources={"gpus": 8})
    wait_until(lambda: all(platform.client.jobs.get(job).state == "running" for job in jobs), 60, "all to run")
    platform.replace("simulated")
    after = ended(platform, jobs)
    assert Counter((job.state, job.attempt) for job in after) == {("succeeded", 1): 40}
    assert [line for line in platform.lines(jobs[0]) if line.startswith("step")][-1].startswith("step 4 of 4")
    assert len(platform.lines(jobs[0])) == 4
    assert_nothing_is_held(platform)
