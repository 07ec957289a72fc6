import json
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.platform import Platform
from tests.support.services import wait_until
from trellis.errors import IllegalTransition

SLEEP = ["/bin/sh", "-c", "echo begun; sleep 600"]
DEAF = ["/bin/sh", "-c", "trap '' TERM; echo begun; while :; do sleep 0.1; done"]


def test_a_cancelled_job_and_what_it_started_are_gone(platform: Platform) -> None:
    script = "setsid sleep 601 & nohup sleep 602 & echo begun; sleep 603"
    job = platform.client.jobs.submit(command=["/bin/sh", "-c", script])
    platform.wait_line(job, "begun")
    assert len(platform.processes_of(job)) >= 4
    platform.client.jobs.cancel(job, reason="not needed")
    ended = platform.ended(job)
    assert (ended.state, ended.cause, ended.attempt) == ("cancelled", "cancelled", 1)
    assert not platform.processes_of(job)
    with pytest.raises(IllegalTransition):
        platform.client.jobs.cancel(job)


def test_a_job_that_does_not_heed_term_is_killed_after_its_grace_and_at_once_when_forced(platform: Platform) -> None:
    patient = platform.client.jobs.submit(command=DEAF, grace=1)
    hurried = platform.client.jobs.submit(command=DEAF, grace=600)
    for job in (patient, hurried):
        platform.wait_line(job, "begun")
    platform.client.jobs.cancel(patient)
    platform.client.jobs.cancel(hurried, force=True)
    assert platform.ended(hurried).state == "cancelled"
    assert platform.ended(patient).state == "cancelled"
    assert not platform.processes_of(patient) + platform.processes_of(hurried)


def test_a_job_that_waits_is_cancelled_without_ever_running(platform: Platform) -> None:
    queue = platform.client.queues.create("closed")
    platform.client.queues.pause(queue.id)
    job = platform.client.jobs.submit(command=SLEEP, queue="closed")
    wait_until(lambda: "paused" in str(platform.client.jobs.get(job).why), 30, "the verdict on a job in a paused queue")
    assert platform.client.jobs.cancel(job).state == "cancelled"
    ended = platform.client.jobs.get(job, verbose=True)
    assert (ended.attempt, ended.attempts, ended.started_at) == (0, (), None)


def test_a_retried_job_is_a_new_one_that_names_the_old(platform: Platform) -> None:
    failed = platform.run_job("/bin/sh", "-c", "exit 3", labels={"kind": "old"})
    retried = platform.client.jobs.retry(failed)
    assert retried.id != failed.id
    assert (retried.retry_of, retried.labels) == (failed.id, {"kind": "old"})
    assert platform.ended(retried).exit_code == 3
    assert platform.client.jobs.get(failed, verbose=True).version == failed.version


def test_a_job_over_its_time_is_ended(platform: Platform) -> None:
    job = platform.run_job(*SLEEP, time_limit=1)
    assert (job.state, job.cause) == ("timed_out", "time_limit")
    assert not platform.processes_of(job)


def test_a_failing_job_is_tried_again_after_growing_pauses(platform: Platform) -> None:
    job = platform.run_job(
        "/bin/sh", "-c", 'echo "try $TRELLIS_ATTEMPT fence $TRELLIS_FENCE"; test "$TRELLIS_ATTEMPT" -ge 3',
        retries={"limit": 5, "backoff_s": 1, "max_backoff_s": 60, "on": ["exit_code"]},
    )  # fmt: skip
    assert (job.state, job.attempt) == ("succeeded", 3)
    first, second, third = sorted(job.attempts, key=lambda attempt: attempt.number)
    assert (first.cause, second.cause, third.cause) == ("exit_code", "exit_code", None)
    assert first.ended_at
    assert second.started_at
    assert second.ended_at
    assert third.started_at
    assert (second.started_at - first.ended_at).total_seconds() >= 1
    assert (third.started_at - second.ended_at).total_seconds() >= 2
    assert platform.lines(job) == ["try 1 fence 1", "try 2 fence 2", "try 3 fence 3"]


def test_retries_run_out(platform: Platform) -> None:
    job = platform.run_job("/bin/false", retries={"limit": 1, "backoff_s": 0, "on": ["exit_code"]})
    assert (job.state, job.exit_code, job.attempt) == ("failed", 1, 2)


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_submit_wait_exits_as_the_job_does(platform: Platform, script: str, code: int) -> None:
    done = platform.run("submit", "--wait", "--", "/bin/sh", "-c", script)
    assert done.returncode == code, done.stdout + done.stderr


def test_a_chain_runs_in_order_and_each_kind_of_dependency_is_kept(platform: Platform) -> None:
    submit = platform.client.jobs.submit
    good = submit(command=["/bin/sh", "-c", "sleep 0.5"])
    after = submit(command=["/bin/true"], depends_on=[{"job": good.id, "kind": "after_success"}])
    bad = submit(command=["/bin/false"], depends_on=[{"job": after.id, "kind": "after_any"}])
    rescue = submit(command=["/bin/true"], depends_on=[{"job": bad.id, "kind": "after_failure"}])
    never = submit(command=["/bin/true"], depends_on=[{"job": bad.id, "kind": "after_success"}])
    chain = [platform.ended(job) for job in (good, after, bad, rescue)]
    assert [job.state for job in chain] == ["succeeded", "succeeded", "failed", "succeeded"]
    for before, later in pairwise(chain):
        assert before.ended_at
        assert later.started_at
        assert before.ended_at <= later.started_at
    refused = platform.ended(never)
    assert (refused.state, refused.attempt) == ("cancelled", 0)
    assert refused.message


def test_an_array_runs_each_index_once_and_no_more_at_a_time_than_allowed(platform: Platform) -> None:
    made = platform.client.jobs.submit_array(
        command=["/bin/sh", "-c", "echo $TRELLIS_ARRAY_INDEX; sleep 0.2"],
        array={"indexes": "0-4:2,7", "max_parallel": 1},
    )
    jobs = [platform.ended(job) for job in made.items]
    assert [job.array_index for job in jobs] == [0, 2, 4, 7]
    assert [platform.lines(job) for job in jobs] == [["0"], ["2"], ["4"], ["7"]]
    spans = sorted((job.started_at, job.ended_at) for job in jobs if job.started_at and job.ended_at)
    assert len(spans) == 4
    assert all(ended <= began for (_, ended), (began, _) in pairwise(spans))


def test_a_batch_script_runs_as_its_lines_say(platform: Platform, tmp_path: Path) -> None:
    script = tmp_path / "hello.sbatch"
    script.write_text(
        "#!/bin/bash\n#SBATCH --job-name=hello\n#SBATCH --cpus-per-task=2\n#SBATCH --mem=64M\n#SBATCH --time=00:01:00\n"
        'echo "hello from $TRELLIS_JOB_NAME with $1"\n'
    )
    done = platform.run("--json", "submit", "--wait", str(script), "--", "an argument")
    assert done.returncode == 0, done.stdout + done.stderr
    job = platform.client.jobs.get(json.loads(done.stdout)["id"], verbose=True)
    assert (job.name, job.resources.cpu_milli, job.resources.memory_bytes) == ("hello", 2000, 64 * 2**20)
    assert job.spec["time_limit_s"] == 60
    assert platform.lines(job) == ["hello from hello with an argument"]


def test_a_batch_script_with_an_array_runs_for_each_index(platform: Platform, tmp_path: Path) -> None:
    script = tmp_path / "many.sbatch"
    script.write_text("#!/bin/sh\n#SBATCH --array=1-3\necho task $SLURM_ARRAY_TASK_ID\n")
    done = platform.run("--json", "submit", str(script))
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = [platform.ended(platform.client.jobs.get(item["id"])) for item in json.loads(done.stdout)["items"]]
    assert sorted(line for job in jobs for line in platform.lines(job)) == ["task 1", "task 2", "task 3"]


def test_ctrl_c_on_logs_follow_leaves_the_job_alone(platform: Platform) -> None:
    job = platform.client.jobs.submit(command=SLEEP)
    platform.wait_line(job, "begun")
    follower = platform.spawn(*platform.argv("logs", "-f", job.id), environment=platform.signed_in, log="followed")
    wait_until(lambda: "begun" in (platform.folder / "followed").read_text(), 30, "the followed log")
    follower.send_signal(signal.SIGINT)
    assert follower.wait(30) == 130
    assert platform.client.jobs.get(job).state == "running"
    platform.client.jobs.cancel(job, force=True)
    platform.ended(job)
