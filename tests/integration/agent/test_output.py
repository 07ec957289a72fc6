"""What a job prints, on its way off the node: without secrets, and never so much that others suffer."""

import json

import pytest

from agent import uploads
from tests.integration.agent.conftest import Node
from tests.support.agent_api import ControlPlane, a_spec, wait_until


def test_a_secret_never_leaves_the_node(node: Node, plane: ControlPlane) -> None:
    script = """
import base64, json, os, sys, time, urllib.parse
secret = os.environ["HF_TOKEN"]
print(secret[:9], end="", flush=True)
time.sleep(0.1)
print(secret[9:])
print(json.dumps({"token": secret}), urllib.parse.quote(secret, safe=""), file=sys.stderr)
print(base64.b64encode(b"user:" + secret.encode()).decode(), secret.encode().hex())
raise RuntimeError("not allowed with " + os.environ["DATABASE_URL"])
"""
    variables = {
        "HF_TOKEN": 'hf_"Zq9/Zq9/Zq9+',
        "DATABASE_URL": "postgresql://me:hunter2hunter2@db/x",
        "MODE": "visible-value",
    }
    node.run(a_spec("r1", script=script, script_name="a.py", environment=variables))
    assert plane.end_of("r1").exit_code == 1
    printed = plane.logs["r1"]
    assert printed.count("***") == 6, printed
    for part in ("Zq9", "WnE5", "hunter2", "5a7139"):
        assert part not in printed


def test_a_job_that_prints_without_end_cuts_its_own_log_and_no_other(node: Node, plane: ControlPlane) -> None:
    flood = "timeout 1 yes $(printf %0999d 1); echo; echo the last word"
    node.run(a_spec("flood", "/bin/sh", "-c", flood))
    wait_until(lambda: len(plane.logs["flood"]) > 1_000_000)
    node.run(a_spec("calm", "/bin/sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.2; done"))
    assert plane.end_of("calm").exit_code == 0
    assert plane.lines("calm") == ["1", "2", "3", "4", "5"]
    plane.end_of("flood")
    assert plane.lines("flood")[-1] == "the last word"
    assert "lines" in plane.lines("flood", "s")[0]
    assert "were left out here" in plane.lines("flood", "s")[0]
    assert len(plane.logs["flood"]) < 24_000_000


def test_a_file_says_what_it_is(node: Node, plane: ControlPlane) -> None:
    script = "from trellis import runtime\nopen('w', 'w').write('1')\nruntime.save_artifact('w', 'w.bin', type='model', metadata={'epoch': 3})\n"
    node.run(a_spec("r1", script=script, script_name="a.py"))
    assert plane.end_of("r1").exit_code == 0, plane.logs["r1"]
    assert plane.artifacts_at_end["r1"] == ["w.bin"]
    kind, details = plane.said_of["r1", "w.bin"]
    assert (kind, json.loads(details)) == ("model", {"epoch": 3})


def test_a_file_waits_for_room_in_a_store_that_is_full_and_the_job_is_told(node: Node, plane: ControlPlane) -> None:
    plane.full = 2
    node.run(a_spec("r1", "/bin/sh", "-c", "echo weights > $TRELLIS_ARTIFACTS_DIR/w.bin"))
    assert plane.end_of("r1").exit_code == 0
    assert plane.artifacts_at_end["r1"] == ["w.bin"]
    (said,) = plane.lines("r1", "s")
    assert said == "the artifact w.bin waits for room, for 10 minutes at most: the store has no room"


def test_a_file_is_given_up_once_it_has_waited_long_enough(
    node: Node, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "FULL_WITHIN_S", 0.0)
    plane.full = 1000
    node.run(a_spec("r1", "/bin/sh", "-c", "echo weights > $TRELLIS_ARTIFACTS_DIR/w.bin"))
    assert plane.end_of("r1").exit_code == 0
    assert plane.artifacts_at_end["r1"] == []
    assert plane.lines("r1", "s")[-1] == "the artifact w.bin was not stored: the store has no room"
