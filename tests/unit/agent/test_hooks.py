"""Programs of the operator: what they are told, how long they may take, what is kept of what they say."""

import os
import time
from pathlib import Path

import psutil
import pytest

from agent.daemon import hooks_of
from agent.ground import Hooks
from agent.hooks import KEPT, NOT_STARTED, OUTPUT_BYTES, TIMED_OUT, about, note, noted, run_hook
from agent.layout import Home
from agent.settings import NodeSettings
from tests.support.agent_api import a_spec
from trellis.settings import SettingsError
from trellis.wire import GpuGrant, HookRun

HOSTILE = "; touch pwned; $(touch pwned) `touch pwned` \n"


def a_program(tmp_path: Path, text: str) -> str:
    program = tmp_path / "hook"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return str(program)


def test_a_hook_hears_ids_and_numbers_and_nothing_that_a_user_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the agent")
    spec = a_spec(
        "r1", "echo", HOSTILE, job_name=HOSTILE, environment={"LD_PRELOAD": HOSTILE}, arguments=(HOSTILE,),
        gpus=(GpuGrant(3, "GPU-c", 1000),),
    )  # fmt: skip
    ran = run_hook(a_program(tmp_path, "env"), "prolog", Hooks(node="n1"), about(spec))
    told = dict(line.split("=", 1) for line in ran.output.splitlines())
    assert (ran.code, told["TRELLIS_HOOK"], told["TRELLIS_NODE"], told["TRELLIS_GPUS"]) == (0, "prolog", "n1", "3")
    assert told.keys() - {"PWD", "SHLVL", "_"} == {
        "PATH", "LANG", "TRELLIS_HOOK", "TRELLIS_NODE", "TRELLIS_JOB_ID", "TRELLIS_PROJECT_ID", "TRELLIS_REPLICA_ID",
        "TRELLIS_ATTEMPT", "TRELLIS_REPLICA_INDEX", "TRELLIS_CPU_MILLI", "TRELLIS_MEMORY_BYTES", "TRELLIS_GPUS",
        "TRELLIS_GPU_UUIDS",
    }  # fmt: skip
    assert "pwned" not in ran.output


def test_one_that_takes_too_long_is_killed_with_what_it_started(tmp_path: Path) -> None:
    began = time.monotonic()
    ran = run_hook(a_program(tmp_path, "sleep 61 & echo begun; sleep 61"), "epilog", Hooks(within_s=0.3), {})
    assert (ran.code, ran.output) == (TIMED_OUT, "begun\n")
    assert time.monotonic() - began < 10
    mine = [one for one in psutil.Process(os.getpid()).children(recursive=True) if one.name() == "sleep"]
    assert not [one for one in mine if one.status() != psutil.STATUS_ZOMBIE]


def test_what_it_prints_is_text_whatever_it_prints(tmp_path: Path) -> None:
    ran = run_hook(a_program(tmp_path, r"printf 'a\0b\377c'; exit 1"), "health", Hooks(), {})
    assert ran.output == "a\ufffdb\ufffdc"
    assert "\0" not in ran.why


def test_what_it_leaves_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    began = time.monotonic()
    ran = run_hook(a_program(tmp_path, "sleep 3 & echo done"), "prolog", Hooks(within_s=30), {})
    assert (ran.code, ran.output) == (0, "done\n")
    assert time.monotonic() - began < 2.5


def test_of_endless_output_the_beginning_is_kept(tmp_path: Path) -> None:
    ran = run_hook(a_program(tmp_path, "yes | head -c 10000000; exit 4"), "prolog", Hooks(within_s=30), {})
    assert (ran.code, len(ran.output)) == (4, OUTPUT_BYTES)
    assert ran.why == "ended with 4: y"


def test_one_that_can_not_be_started_says_why(tmp_path: Path) -> None:
    ran = run_hook(str(tmp_path / "none"), "prolog", Hooks(), {})
    assert ran.code == NOT_STARTED
    assert "No such file" in ran.why


def test_what_is_to_be_told_is_kept_until_it_was_and_bounded(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert noted(home) == {}
    for number in range(KEPT + 5):
        note(home, HookRun("epilog", ok=False, output=str(number), replica_id="r1"))
    assert [run.output for run in noted(home).values()] == [str(number) for number in range(KEPT)]
    for path in noted(home):
        path.unlink()
    assert noted(home) == {}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"prolog": "echo hello"}, "TRELLIS_PROLOG"), ({"epilog": "/does/not/exist"}, "TRELLIS_EPILOG"),
        ({"on_join": "bin/true"}, "TRELLIS_ON_JOIN"), ({"hook_within_s": 0.0}, "TRELLIS_HOOK_WITHIN_S"),
        ({"hook_within_s": float("nan")}, "TRELLIS_HOOK_WITHIN_S"), ({"health_every_s": 0.0}, "TRELLIS_HEALTH_EVERY_S"),
    ],
)  # fmt: skip
def test_a_setting_that_names_no_program_is_refused_at_the_start(changes: dict[str, object], word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        hooks_of(NodeSettings("http://x", **changes))  # type: ignore[arg-type]
