"""Jobs in containers, on a whole platform: typed, followed, cancelled, and outliving who looks after them."""

import os
import signal
from pathlib import Path

import pytest

from tests.support.engine import IMAGE, TestEngine
from tests.support.platform import Platform
from tests.support.services import wait_until
from trellis.answers import Job

COUNT = (
    'for i in 1 2 3 4 5 6 7 8; do echo "line $i"; sleep 0.3; done; echo once >> $TRELLIS_ARTIFACTS_DIR/witness; exit 5'
)


@pytest.fixture
def engine(container_engine: TestEngine) -> TestEngine:
    return container_engine


def folder_of(platform: Platform, job: Job) -> Path:
    (replica,) = platform.client.jobs.get(job, verbose=True).attempts[-1].replicas
    (found,) = platform.home.glob(f"nodes/node-1/replicas/{replica.id}.*")
    return found


def test_a_command_is_run_in_an_image_and_followed_to_its_end(platform: Platform, engine: TestEngine) -> None:
    script = "echo in the image; ls /bin/busybox; echo $HOME; exit 3"
    done = platform.run("submit", "--image", IMAGE, "--mem", "64MiB", "--follow", "--", "sh", "-c", script)
    assert done.returncode == 3, done.stderr
    assert [line for line in done.stdout.splitlines() if "image localhost" not in line] == [
        "in the image", "/bin/busybox", "/job/work",
    ]  # fmt: skip


def test_an_image_that_is_not_there_is_said_in_the_jobs_own_words(platform: Platform, engine: TestEngine) -> None:
    job = platform.client.jobs.submit(
        command=["true"], image="localhost/not-here:1", pull="never", retries={"limit": 0}
    )
    ended = platform.ended(job)
    assert (ended.state, ended.cause) == ("failed", "start_failed")
    assert "localhost/not-here:1 can't be had: this node does not have it" in (ended.message or "")


def test_a_cancelled_job_leaves_no_container(platform: Platform, engine: TestEngine) -> None:
    job = platform.client.jobs.submit(command=["sh", "-c", "echo begun; sleep 600"], image=IMAGE)
    platform.wait_line(job, "begun")
    name = f"trellis-{folder_of(platform, job).name}"
    assert name in engine.names()
    platform.client.jobs.cancel(job)
    assert platform.ended(job).state == "cancelled"
    wait_until(lambda: name not in engine.names(), 20.0, "the container to be gone")


def test_a_job_outlives_its_supervisor_and_its_node_and_ends_once(platform: Platform, engine: TestEngine) -> None:
    job = platform.client.jobs.submit(command=["sh", "-c", COUNT], image=IMAGE, retries={"limit": 0})
    platform.wait_line(job, "line 2")
    supervisor, agent = int((folder_of(platform, job) / "lock").read_text()), platform.pid("node-1")
    os.kill(agent, signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL)
    ended = platform.ended(job)
    assert (ended.state, ended.exit_code, ended.attempt) == ("failed", 5, 1), ended.message
    assert [line for line in platform.lines(job) if line.startswith("line")] == [f"line {i}" for i in range(1, 9)]
    (witness,) = platform.client.jobs.artifacts(job)
    assert (witness.name, witness.size_bytes) == ("witness", len("once\n"))
