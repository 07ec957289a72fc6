"""What a replica uses."""

import os
import subprocess
import sys
from pathlib import Path

from agent import processes
from agent.sampling import Consumed, Sampler, consumed_by
from tests.support.agent_api import wait_until

BURN = "import sys, time\nkept = bytearray(50 << 20)\nwhile True: time.process_time()"
WRITE = "import os, sys\nfile = open(sys.argv[1], 'wb')\nfile.write(bytes(8 << 20)); file.flush(); os.fsync(file.fileno()); sys.stdin.read()"


def test_a_process_that_burns_shows_in_cores_and_bytes() -> None:
    with subprocess.Popen([sys.executable, "-c", BURN]) as burning:
        sampler = Sampler()
        wait_until(lambda: consumed_by([burning.pid], 0.0).cpu_s >= 0.3)
        found = sampler.sample([burning.pid], 0.0)
        burning.kill()
    assert 0.05 < found["trellis/cpu_cores"] < 2
    assert found["trellis/memory_bytes"] > 50 << 20
    assert found["trellis/processes"] == 1


def test_what_is_written_to_a_disk_shows(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE, str(tmp_path / "file")]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as writing:
        wait_until(lambda: consumed_by([writing.pid], 0.0).written_bytes >= 8 << 20)
        writing.kill()


def test_what_ended_is_counted_and_never_makes_a_rate_negative() -> None:
    sampler = Sampler()
    assert sampler.sample([], 2.0)["trellis/cpu_cores"] > 0
    assert sampler.sample([], 1.0)["trellis/cpu_cores"] == 0


def test_a_process_that_is_gone_counts_nothing() -> None:
    with subprocess.Popen(["/bin/true"]) as gone:
        gone.wait()
    assert consumed_by([gone.pid], 1.5) == Consumed(1.5)
    assert processes.memory_bytes([gone.pid]) == 0


def test_our_own_process_can_be_asked() -> None:
    assert consumed_by([os.getpid()], 0.0).cpu_s > 0
