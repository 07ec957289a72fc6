"""What a node does with the replicas it is given."""

import os
import signal
import time
from pathlib import Path

import pytest

from agent import commands, processes
from tests.integration.agent.conftest import Node
from tests.support.agent_api import ControlPlane, a_spec, wait_until
from trellis.vocabulary import Cause, ReplicaState, StopReason
from trellis.wire import GpuGrant

CODE = str(Path(__file__).parents[3])


def test_a_job_reports_its_states_output_and_exit_code_and_leaves_nothing_behind(
    node: Node, plane: ControlPlane
) -> None:
    node.run(a_spec("r1", "/bin/sh", "-c", "echo out; echo err >&2; exit 3"))
    end = plane.end_of("r1")
    assert [report.state for report in plane.reports["r1"]] == ["starting", "running", "failed"]
    assert (end.cause, end.exit_code, end.signal) == (Cause.EXIT_CODE, 3, None)
    assert min(end.run_s, end.cpu_s, end.peak_memory_bytes) > 0
    assert (plane.lines("r1"), plane.lines("r1", "e")) == (["out"], ["err"])
    wait_until(lambda: not list(node.home.find_replicas()))


def test_a_job_that_succeeds_has_no_cause(node: Node, plane: ControlPlane) -> None:
    node.run(a_spec("r1", "/bin/true"))
    end = plane.end_of("r1")
    assert (end.state, end.cause, end.exit_code) == (ReplicaState.SUCCEEDED, None, 0)


@pytest.mark.parametrize(
    ("name", "script", "said"),
    [
        ("hello.py", "import sys\nprint(sys.argv[1:])\n", "['a', 'b c']"),
        ("hello.sh", 'echo "$#: $2"\n', "2: b c"),
        ("hello", '#!/bin/bash\necho "${BASH_VERSION:+bash} $1"\n', "bash a"),
        ("../../etc/evil", "echo $0\n", "script"),
    ],
)
def test_a_script_runs_with_the_interpreter_it_asks_for(
    node: Node, plane: ControlPlane, name: str, script: str, said: str
) -> None:
    node.run(a_spec("r1", script=script, script_name=name, arguments=("a", "b c")))
    assert plane.end_of("r1").exit_code == 0, plane.logs["r1"]
    assert plane.lines("r1")[0].endswith(said)


def test_a_command_that_is_not_there_ends_with_127(confined_node: Node, plane: ControlPlane) -> None:
    confined_node.run(a_spec("r1", "no-such-command"))
    end = plane.end_of("r1")
    assert (end.state, end.cause, end.exit_code) == (ReplicaState.FAILED, Cause.EXIT_CODE, 127)
    assert "no-such-command" in plane.logs["r1"]


def test_a_job_that_dies_of_a_signal_says_which(confined_node: Node, plane: ControlPlane) -> None:
    confined_node.run(a_spec("r1", "/bin/sh", "-c", "kill -SEGV $$"))
    end = plane.end_of("r1")
    assert (end.cause, end.exit_code, end.signal) == (Cause.SIGNAL, 139, 11)


def test_the_environment_is_the_jobs_own_and_nothing_of_the_nodes(
    confined_node: Node, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRELLIS_SECRET_KEY", "hush")
    wishes = {"MINE": "yes", "LD_PRELOAD": "/evil.so", "TRELLIS_FENCE": "99", "TRELLIS_ARRAY_INDEX": "7"}
    gpus = (GpuGrant(0, "GPU-a", 1000), GpuGrant(1, "GPU-b", 500))
    confined_node.run(a_spec("r1", "/usr/bin/env", environment=wishes, gpus=gpus), a_spec("r2", "/usr/bin/env"))
    plane.end_of("r1")
    plane.end_of("r2")
    seen = dict(line.split("=", 1) for line in plane.lines("r1"))
    assert seen.keys() - {"PWD"} == {
        "PATH", "HOME", "LANG", "USER", "TMPDIR", "MINE", "TRELLIS_ARRAY_INDEX", "TRELLIS_JOB_ID", "TRELLIS_JOB_NAME",
        "TRELLIS_ATTEMPT", "TRELLIS_FENCE", "TRELLIS_REPLICA_INDEX", "TRELLIS_REPLICA_COUNT", "TRELLIS_ARTIFACTS_DIR",
        "TRELLIS_RUNTIME_SOCKET", "CUDA_VISIBLE_DEVICES",
    }  # fmt: skip
    assert (seen["TRELLIS_FENCE"], seen["CUDA_VISIBLE_DEVICES"]) == ("1", "GPU-a,GPU-b")
    assert plane.lines("r1", "s") == [f"{n} was not passed on to the job" for n in ("LD_PRELOAD", "TRELLIS_FENCE")]
    assert "CUDA_VISIBLE_DEVICES=" in plane.lines("r2")


def test_metrics_and_artifacts_arrive_before_the_end_is_told(confined_node: Node, plane: ControlPlane) -> None:
    script = """
import os
from trellis import runtime
for step in range(50):
    runtime.log_metric("loss", 1 / (step + 1), step=step)
open("model.bin", "wb").write(b"weights")
runtime.save_artifact("model.bin")
os.makedirs(os.environ["TRELLIS_ARTIFACTS_DIR"] + "/deep")
open(os.environ["TRELLIS_ARTIFACTS_DIR"] + "/deep/notes", "w").write("x")
os.symlink("/etc/passwd", os.environ["TRELLIS_ARTIFACTS_DIR"] + "/link")
print(runtime.context().job_id)
"""
    confined_node.run(a_spec("r1", script=script, script_name="a.py", environment={"PYTHONPATH": CODE}))
    assert plane.end_of("r1").exit_code == 0, plane.logs["r1"]
    assert [(point.name, point.step) for point in plane.metrics["r1"]] == [("loss", step) for step in range(50)]
    assert plane.artifacts_at_end["r1"] == ["deep/notes", "model.bin"]
    assert plane.artifacts["r1"]["model.bin"] == b"weights"
    assert plane.lines("r1") == ["job-of-r1"]


def test_an_artifact_that_is_refused_is_named_in_the_log(node: Node, plane: ControlPlane) -> None:
    node.run(a_spec("r1", "/bin/sh", "-c", "echo x > $TRELLIS_ARTIFACTS_DIR/forbidden.bin"))
    plane.end_of("r1")
    assert plane.lines("r1", "s") == ["the artifact forbidden.bin was not stored: too large"]


def test_a_cancelled_job_is_gone_at_once(confined_node: Node, plane: ControlPlane) -> None:
    confined_node.run(a_spec("r1", "/bin/sh", "-c", "echo up; exec sleep 1000"))
    wait_until(lambda: "up" in plane.lines("r1"))
    plane.wish_end("r1", StopReason.CANCELLED)
    began = time.monotonic()
    commands.stop([("r1", 1)])
    end = plane.end_of("r1")
    took_s = time.monotonic() - began
    assert (end.state, end.cause, end.signal) == (ReplicaState.CANCELLED, Cause.CANCELLED, signal.SIGTERM)
    assert took_s < 2


def test_a_job_that_ignores_term_is_killed_after_its_grace(confined_node: Node, plane: ControlPlane) -> None:
    confined_node.run(a_spec("r1", "/bin/sh", "-c", "trap 'echo no' TERM; echo ready; while :; do sleep 0.05; done"))
    wait_until(lambda: "ready" in plane.lines("r1"))
    plane.wish_end("r1", StopReason.PREEMPTED, grace_s=1)
    commands.stop([])
    end = plane.end_of("r1")
    assert (end.state, end.signal) == (ReplicaState.PREEMPTED, signal.SIGKILL)
    assert "no" in plane.lines("r1")


def test_the_time_limit_ends_a_job(node: Node, plane: ControlPlane) -> None:
    node.run(a_spec("r1", "/bin/sleep", "1000", time_limit_s=1))
    end = plane.end_of("r1")
    assert (end.state, end.cause) == (ReplicaState.TIMED_OUT, Cause.TIME_LIMIT)
    assert 1 <= end.run_s < 5


def test_a_job_that_takes_more_memory_than_it_asked_for_is_ended(confined_node: Node, plane: ControlPlane) -> None:
    script = "import time\nkept = bytearray(200_000_000)\ntime.sleep(1000)\n"
    confined_node.run(a_spec("r1", script=script, script_name="eat.py", memory_bytes=100_000_000))
    end = plane.end_of("r1")
    assert (end.state, end.cause) == (ReplicaState.FAILED, Cause.OUT_OF_MEMORY)
    assert end.peak_memory_bytes > 90_000_000


def test_processes_that_hold_too_much_together_are_ended_and_their_neighbour_is_not(
    limited_node: Node, plane: ControlPlane
) -> None:
    hold = "import sys, time\nkept = bytearray(40_000_000)\nprint('held', flush=True)\ntime.sleep(1000)\n"
    many = f"import subprocess, sys\nfor _ in range(8): last = subprocess.Popen([sys.executable, '-c', {hold!r}])\n"
    many += "sys.exit(last.wait() != 0)\n"
    limited_node.run(
        a_spec("good", script=hold, script_name="hold.py", memory_bytes=100_000_000),
        a_spec("greedy", script=many, script_name="many.py", memory_bytes=200_000_000),
    )
    end = plane.end_of("greedy")
    assert (end.state, end.cause) == (ReplicaState.FAILED, Cause.OUT_OF_MEMORY)
    wait_until(lambda: "held" in plane.lines("good"))
    assert plane.reports["good"][-1].state == ReplicaState.RUNNING


def test_a_job_that_forks_without_end_meets_its_limit_and_is_told(limited_node: Node, plane: ControlPlane) -> None:
    bomb = "import threading, time\nmade = 0\ntry:\n    while True:\n"
    bomb += "        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n        made += 1\n"
    bomb += "except RuntimeError:\n    print(made, flush=True)\n    raise SystemExit(3)\n"
    limited_node.run(a_spec("r1", "python3", "-S", "-c", bomb, memory_bytes=2_000_000_000))
    end = plane.end_of("r1")
    assert (end.exit_code, end.cause) == (3, Cause.EXIT_CODE)
    assert 4000 < int(plane.lines("r1")[0]) < 4700
    assert "was refused a process or thread" in plane.lines("r1", "s")[-1]


def test_a_replica_leaves_no_control_group_behind(limited_node: Node, plane: ControlPlane) -> None:
    limited_node.run(a_spec("r1", "/bin/sh", "-c", "setsid -f sleep 1000; exit 0"))
    assert plane.end_of("r1").state == ReplicaState.SUCCEEDED
    folders = limited_node.groups.folders.values()
    wait_until(
        lambda: not [path for folder in folders for path in Path(folder).iterdir() if path.name.startswith("r1.")]
    )


def test_a_node_that_ends_leaves_no_control_group_behind_and_one_that_comes_back_has_them(
    limited_node: Node, plane: ControlPlane
) -> None:
    folders = [Path(folder) for folder in limited_node.groups.folders.values()]
    assert all(folder.is_dir() for folder in folders)
    limited_node.daemon.stop()
    assert not any(folder.exists() for folder in folders)
    limited_node.start()
    limited_node.run(a_spec("r1", "/bin/true"))
    assert plane.end_of("r1").state == ReplicaState.SUCCEEDED


def test_what_a_job_leaves_in_the_background_dies_with_it(confined_node: Node, plane: ControlPlane) -> None:
    mark = f"31{os.getpid()}"
    confined_node.run(a_spec("r1", "/bin/sh", "-c", f"setsid -f sleep {mark}; setsid -f sh -c 'sleep {mark}'; exit 0"))
    assert plane.end_of("r1").state == ReplicaState.SUCCEEDED
    assert _processes_with(mark) == []


def test_a_cancelled_jobs_daemons_die_too(confined_node: Node, plane: ControlPlane) -> None:
    mark = f"32{os.getpid()}"
    confined_node.run(a_spec("r1", "/bin/sh", "-c", f"setsid -f sleep {mark}; echo up; sleep {mark}"))
    wait_until(lambda: "up" in plane.lines("r1"))
    plane.wish_end("r1", StopReason.CANCELLED)
    commands.stop([])
    plane.end_of("r1")
    assert _processes_with(mark) == []


def test_a_stale_replica_is_ended_and_forgotten_without_a_word(node: Node, plane: ControlPlane) -> None:
    plane.stale.add("r1")
    node.run(a_spec("r1", "/bin/sleep", "1000"))
    wait_until(lambda: plane.shipments)
    wait_until(lambda: plane.heartbeats[-1].replicas == () and not list(node.home.find_replicas()))
    assert all(report.state in ("starting", "running") for report in plane.reports["r1"])


def test_output_that_is_no_text_and_lines_without_end_arrive(node: Node, plane: ControlPlane) -> None:
    script = r"""
import sys
sys.stdout.buffer.write(b"\xff\x00ok\n" + b"x" * 200_000 + b"\nlast")
"""
    node.run(a_spec("r1", script=script, script_name="noise.py"))
    plane.end_of("r1")
    lines = plane.lines("r1")
    assert lines[0] == "\ufffd\ufffdok"
    assert [len(line) for line in lines[1:-1]] == [65536, 65536, 65536, 200_000 - 3 * 65536]
    assert lines[-1] == "last"


def test_a_loud_job_loses_no_line(node: Node, plane: ControlPlane) -> None:
    node.run(a_spec("r1", "/bin/sh", "-c", "seq 1 200000"))
    plane.end_of("r1")
    assert plane.lines("r1") == [str(number) for number in range(1, 200_001)]


def test_many_short_jobs_all_end(node: Node, plane: ControlPlane) -> None:
    node.run(*(a_spec(f"r{number}", "/bin/true") for number in range(40)))
    assert {plane.end_of(f"r{number}").state for number in range(40)} == {ReplicaState.SUCCEEDED}
    wait_until(lambda: not list(node.home.find_replicas()))


def _processes_with(word: str) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if word.encode() in line.split(b"\0") and processes.started_at(int(process.name)):
            found.append(int(process.name))
    return found


def test_artifacts_with_names_that_are_no_text_and_deep_folders_hold_up_nothing(
    node: Node, plane: ControlPlane
) -> None:
    script = r"""
import os
os.chdir(os.environ["TRELLIS_ARTIFACTS_DIR"])
open(b"\xff\xfe.bin", "wb").close()
open("good.bin", "wb").close()
for _ in range(1500):
    os.mkdir("d")
    os.chdir("d")
"""
    node.run(a_spec("r1", script=script, script_name="trap.py"))
    assert plane.end_of("r1").exit_code == 0, plane.logs["r1"]
    assert plane.artifacts_at_end["r1"] == ["good.bin"]
    assert any("was not stored" in line for line in plane.lines("r1", "s"))
    wait_until(lambda: not list(node.home.find_replicas()) and not list(node.home.trash.iterdir()))
    node.run(a_spec("r2", "/bin/sh", "-c", "echo x > $TRELLIS_ARTIFACTS_DIR/later"))
    plane.end_of("r2")
    assert plane.artifacts_at_end["r2"] == ["later"]


def test_more_artifacts_than_are_kept_are_not_dropped_without_a_word(node: Node, plane: ControlPlane) -> None:
    node.run(a_spec("r1", "/bin/sh", "-c", "cd $TRELLIS_ARTIFACTS_DIR; seq 1 1003 | xargs touch"))
    plane.end_of("r1", 60)
    assert len(plane.artifacts["r1"]) == 1000
    assert plane.lines("r1", "s") == ["there are more than 1000 artifacts: the others were not stored"]


@pytest.mark.parametrize("words", [("/bin/echo", "\ud800"), ("/bin/echo", "a\0b")])
def test_words_that_no_program_can_be_given_are_the_jobs_fault_and_not_the_nodes(
    confined_node: Node, plane: ControlPlane, words: tuple[str, ...]
) -> None:
    confined_node.run(a_spec("r1", *words))
    end = plane.end_of("r1")
    assert end.state == ReplicaState.FAILED
    assert end.cause in (Cause.START_FAILED, Cause.EXIT_CODE)


def test_what_a_job_uses_is_measured_now_and_then(node: Node, plane: ControlPlane) -> None:
    node.run(a_spec("r1", "python", "-c", "kept = bytearray(40 << 20)\nwhile True: pass"))
    wait_until(lambda: any(point.name == "trellis/cpu_cores" for point in plane.metrics["r1"]), within_s=40)
    found = {point.name: point.value for point in plane.metrics["r1"]}
    assert 0.05 < found["trellis/cpu_cores"] < 1.5
    assert found["trellis/memory_bytes"] > 40 << 20
    plane.wish_end("r1", StopReason.CANCELLED, 0)
    plane.end_of("r1")


def test_a_job_that_is_over_soon_is_not_measured(node: Node, plane: ControlPlane) -> None:
    node.run(a_spec("r1", "/bin/true"))
    plane.end_of("r1")
    assert plane.metrics["r1"] == []
