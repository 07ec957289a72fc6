from scheduler.config import Config
from scheduler.policies.gang import gang
from scheduler.snapshot import PendingJob
from scheduler.standing import Standing
from scheduler.usage import Usage
from tests.support.clusters import a_job, a_node, a_request

HOUR_S = 3600.0
STANDING = Standing(Usage([a_node(cpus=64, gib=1024, gpus=64)]), Config(size_lead_s=HOUR_S))


def first(*jobs: PendingJob) -> str:
    return min(jobs, key=lambda job: gang(job, STANDING)).id


def test_of_jobs_that_came_together_the_largest_goes_first() -> None:
    one_gpu = a_request(gpu_milli=1000)
    assert (
        first(a_job("small", one_gpu), a_job("gang", one_gpu, replicas=16), a_job("pair", one_gpu, replicas=2))
        == "gang"
    )


def test_twice_the_size_is_worth_one_lead() -> None:
    one_cpu = a_request()
    small = a_job("small", one_cpu, at=0.0)
    assert first(small, a_job("twice", one_cpu, replicas=2, at=0.9 * HOUR_S)) == "twice"
    assert first(small, a_job("twice", one_cpu, replicas=2, at=1.1 * HOUR_S)) == "small"
    assert first(small, a_job("all", one_cpu, replicas=64, at=5.9 * HOUR_S)) == "all"
    assert first(small, a_job("all", one_cpu, replicas=64, at=6.1 * HOUR_S)) == "small"


def test_size_is_the_share_of_the_scarcest_resource() -> None:
    assert first(a_job("cpus", a_request(cpus=8)), a_job("gpus", a_request(gpu_milli=16_000))) == "gpus"
