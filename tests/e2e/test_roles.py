"""A gang of two roles over two nodes, in real processes: each replica with its own command, amounts and slice."""

from collections.abc import Iterator

import pytest

from tests.support.platform import Platform, running

SAY = 'echo "$TRELLIS_ROLE of $TRELLIS_REPLICA_COUNT on $CUDA_VISIBLE_DEVICES"'


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    profile = "gpu_type=H100,gpus=1,partitioned=1,cpu_cores=2,memory_gb=8"
    with running(nodes=2, profile=profile) as found:
        yield found


def test_the_roles_of_a_gang_run_side_by_side_with_what_each_asked_for(platform: Platform) -> None:
    resources = {"cpus": 2, "memory": "1GiB"}
    job = platform.client.jobs.submit(
        roles=[
            {"name": "driver", "resources": {"cpus": 2, "memory": "1GiB"}, "command": ["/bin/sh", "-c", f"{SAY}; exit 0"]},
            {"name": "worker", "resources": {"cpus": 2, "memory": "1GiB", "mig_profile": "3g.40gb"}},
        ],
        command=["/bin/sh", "-c", SAY],
        constraints={"labels": {"os": "linux"}},
    )  # fmt: skip
    ended = platform.ended(job)
    assert ended.state == "succeeded"
    (attempt,) = platform.client.jobs.get(job, verbose=True).attempts
    assert {replica.role: replica.node for replica in attempt.replicas}.keys() == {"driver", "worker"}
    assert len({replica.node for replica in attempt.replicas}) == 2
    driver, worker = sorted(platform.lines(job))
    assert driver == "driver of 2 on "
    assert worker.startswith("worker of 2 on MIG-")
    again = platform.run_job("/bin/sh", "-c", SAY, resources={**resources, "mig_profile": "7g.80gb"})
    assert platform.lines(again)[0].startswith(" of 1 on MIG-")
