import json
from typing import Any

import pytest

from tests.support.command_line import CommandLine
from tests.support.fake_api import a_job_body, end_event, events, log_event, problem, reply
from trellis.answers import Job
from trellis.cli.submit import exit_code

SBATCH = "#!/bin/bash\n#SBATCH -J train -t 10 --gres=gpu:1 -c 2 --export=A=1\npython train.py\n"


@pytest.fixture
def accepted(cli: CommandLine) -> CommandLine:
    cli.api.on("POST", "/jobs", reply(a_job_body(id="j1"), 201))
    return cli


def sent(cli: CommandLine) -> dict[str, Any]:
    bodies: list[dict[str, Any]] = cli.api.bodies("POST", "/jobs")
    assert len(bodies) == 1
    return bodies[0]


def test_a_command_is_what_follows_the_dashes_word_for_word(accepted: CommandLine) -> None:
    done = accepted.run("submit", "--gpus", "1", "--", "python", "train.py", "--gpus", "9", "--", "-x")
    assert (done.exit_code, done.stdout) == (0, "Submitted job j1.\n")
    command = ["python", "train.py", "--gpus", "9", "--", "-x"]
    assert sent(accepted) == {"name": "python", "command": command, "resources": {"gpus": "1"}}


def test_a_script_is_sent_with_the_arguments_after_the_dashes(accepted: CommandLine) -> None:
    (accepted.work / "train.py").write_text("print('hello')\n")
    accepted.run("submit", "train.py", "--queue", "fast", "--", "--epochs", "3")
    assert sent(accepted) == {
        "name": "train.py",
        "script": "print('hello')\n",
        "script_name": "train.py",
        "arguments": ["--epochs", "3"],
        "queue": "fast",
    }


def test_options_win_over_directives_and_add_to_them(accepted: CommandLine) -> None:
    (accepted.work / "train.sbatch").write_text(SBATCH)
    accepted.run("submit", "train.sbatch", "--time", "2h", "--cpus", "8", "--env", "B=2", "--name", "mine")
    body = sent(accepted)
    assert (body["name"], body["time_limit"], body["resources"]) == ("mine", 7200, {"cpus": "8", "gpus": 1})
    assert (body["environment"]["A"], body["environment"]["B"]) == ("1", "2")


def test_an_image_and_what_goes_with_it_reach_the_body(accepted: CommandLine) -> None:
    done = accepted.run("submit", "--image", "tool:1", "--pull", "always", "--writable-root", "--", "true")
    assert done.exit_code == 0, done.stderr
    body = sent(accepted)
    assert (body["image"], body["pull"], body["security"]) == ("tool:1", "always", {"read_only_root": False})


def test_every_option_reaches_the_body(accepted: CommandLine) -> None:
    done = accepted.run(
        "submit", "-J", "n", "-A", "p", "-p", "q", "-G", "2", "--gpu-type", "H100", "-c", "500m", "--mem", "2GiB",
        "-t", "90s", "--priority", "-5", "-N", "3", "-e", "K=a=b", "--label", "team=x", "-d", "j0", "-d", "any:j9",
        "--retries", "2", "--network", "host", "--", "true",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert sent(accepted) == {
        "command": ["true"],
        "name": "n",
        "project": "p",
        "queue": "q",
        "resources": {"gpus": "2", "gpu_type": "H100", "cpus": "500m", "memory": "2GiB"},
        "time_limit": 90,
        "priority": -5,
        "replicas": 3,
        "environment": {"K": "a=b"},
        "labels": {"team": "x"},
        "depends_on": [{"job": "j0", "kind": "after_success"}, {"job": "j9", "kind": "after_any"}],
        "retries": {"limit": 2},
        "network": "host",
    }


def test_what_becomes_of_several_replicas_reaches_the_body_and_notes_are_shown(cli: CommandLine) -> None:
    cli.api.on("POST", "/jobs", reply(a_job_body(id="j1", notes=["they reach nobody"]), 201))
    done = cli.run(
        "submit", "--replicas", "2-4", "--on-replica-failure", "shrink", "--on-resize", "restart",
        "--checkpoint-by", "rank0", "--", "true",
    )  # fmt: skip
    assert (done.exit_code, done.stdout) == (0, "Submitted job j1.\n")
    assert "Note: they reach nobody." in done.stderr
    body = sent(cli)
    assert (body["min_replicas"], body["max_replicas"], body["on_replica_failure"]) == (2, 4, "shrink")
    assert (body["on_resize"], body["checkpoint"]) == ("restart", {"every": 600, "by": "rank0"})


def test_an_array_says_how_many_jobs_it_made(cli: CommandLine) -> None:
    cli.api.on("POST", "/jobs", reply({"array_id": "a1", "items": [], "count": 10}, 201))
    assert cli.run("submit", "--array", "0-9%4", "--", "true").stdout == "Submitted 10 jobs as array a1.\n"
    assert sent(cli)["array"] == {"indexes": "0-9", "max_parallel": 4}


WOULD = {
    "count": 1, "refused": None, "could_ever_start": True, "total": {"cpu_milli": 1000, "gpu_milli": 1000, "gpu_seconds_at_most": 7200},
    "jobs": [{"name": "true", "count": 1, "queue": "default", "forecast": 0, "total": {"gpu_milli": 1000, "gpu_seconds_at_most": 7200}}],
    "forecasts": [{"queue": "default", "copies": [{"certainty": "now", "nodes": ["gpu-1"]}], "starting_now": 1}],
}  # fmt: skip


def test_a_dry_run_asks_what_would_happen_and_submits_nothing(cli: CommandLine) -> None:
    cli.api.on("POST", "/jobs/dry-run", reply(WOULD))
    done = cli.run("submit", "--dry-run", "--gpus", "1", "--", "true")
    assert done.exit_code == 0, done.stderr
    assert "Nothing was submitted: 1 job would be accepted." in done.stdout
    assert "It would start now in queue default." in done.stdout
    job = {"name": "true", "command": ["true"], "resources": {"gpus": "1"}}
    assert cli.api.bodies("POST", "/jobs/dry-run") == [{"job": job}]
    assert not cli.api.bodies("POST", "/jobs")


def test_a_dry_run_that_would_be_refused_fails_and_says_why(cli: CommandLine) -> None:
    cli.api.on("POST", "/jobs/dry-run", reply({**WOULD, "count": 10, "refused": "no room", "forecasts": []}))
    done = cli.run("submit", "--dry-run", "--array", "0-9", "--", "true")
    assert (done.exit_code, "10 jobs would be refused: no room." in done.stdout) == (1, True)


def test_json_is_the_servers_answer(accepted: CommandLine) -> None:
    for words in (["submit", "--json", "--", "true"], ["--json", "submit", "--", "true"]):
        assert json.loads(accepted.run(*words).stdout) == a_job_body(id="j1")


@pytest.mark.parametrize(
    ("state", "code", "seen"),
    [
        ("succeeded", 0, 0), ("failed", 3, 3), ("failed", None, 1), ("failed", 0, 1), ("failed", -9, 137),
        ("failed", 300, 255), ("cancelled", None, 130), ("cancelled", 143, 130), ("timed_out", None, 124),
        ("lost", None, 1),
    ],
)  # fmt: skip
def test_the_exit_code_is_the_jobs(state: str, code: int | None, seen: int) -> None:
    assert exit_code(Job(state=state, exit_code=code)) == seen


def test_waiting_exits_as_the_job_does_and_says_why(accepted: CommandLine) -> None:
    ended = a_job_body(id="j1", state="failed", exit_code=3, run_s=1.25, message="exit code 3")
    accepted.api.on("GET", "/jobs/j1/logs", events(end_event("failed", 3))).on("GET", "/jobs/j1", reply(ended))
    done = accepted.run("submit", "--wait", "--", "false")
    assert done.exit_code == 3
    assert done.stdout == ""
    assert done.stderr.endswith("Job j1 failed after 1.25 s (exit code 3).\n")


def test_following_prints_the_log_alone_on_standard_output(accepted: CommandLine) -> None:
    accepted.api.on("GET", "/jobs/j1/logs", events(log_event(1, "epoch 1"), log_event(2, "epoch 2"), end_event()))
    accepted.api.on("GET", "/jobs/j1", reply(a_job_body(id="j1", state="succeeded", exit_code=0, run_s=2)))
    done = accepted.run("submit", "-f", "--", "true")
    assert (done.exit_code, done.stdout) == (0, "epoch 1\nepoch 2\n")
    assert done.stderr == "Submitted job j1.\nJob j1 succeeded after 2.00 s.\n"


WRONG: list[tuple[list[str], str]] = [
    (["submit"], "trellis: FILE name a script, or write a command after `--`\n"),
    (
        ["submit", "python", "train.py"],
        "there is no file 'python'; for a command write `trellis submit -- python train.py`\n",
    ),
    (["submit", "--env", "K", "--", "true"], "trellis: --env must be K=V, not 'K'\n"),
    (["submit", "--time", "soon", "--", "true"], "trellis: --time must be a duration such as 90s"),
    (["submit", "--array", "0-9%x", "--", "true"], "trellis: --array must be such as"),
    (["submit", "--after", "never:j1", "--", "true"], "trellis: --after must be ID, failure:ID or any:ID"),
    (["submit", "--array", "0-9", "--wait", "--", "true"], "trellis: --wait, --follow an array is many jobs"),
    (["submit", "big"], "larger than a script may be"),
    (["submit", "binary"], "binary is not text; to run a program write `trellis submit -- binary`\n"),
]


@pytest.mark.parametrize(("words", "says"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_a_mistake_is_one_line_with_the_way_out_and_nothing_is_sent(
    cli: CommandLine, words: list[str], says: str
) -> None:
    (cli.work / "big").write_bytes(b"#" * (2**20 + 1))
    (cli.work / "binary").write_bytes(b"\x7fELF\xff")
    done = cli.run(*words)
    assert done.exit_code == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert cli.api.asked == []


def test_faults_of_a_batch_script_are_listed_by_line(cli: CommandLine) -> None:
    (cli.work / "x.sh").write_text("#!/bin/sh\n#SBATCH --output=x --frobnicate\ntrue\n")
    done = cli.run("submit", "x.sh")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[0] == "trellis: that can't be accepted:"
    assert "line 2: --output is not supported" in done.stderr
    assert "line 2: --frobnicate is not a directive known here" in done.stderr


def test_a_directive_may_be_left_out_by_name(accepted: CommandLine) -> None:
    (accepted.work / "x.sh").write_text("#!/bin/sh\n#SBATCH --output=x\ntrue\n")
    assert accepted.run("submit", "x.sh", "--without", "output").exit_code == 0


def test_a_fault_that_the_server_found_names_the_field(cli: CommandLine) -> None:
    errors = [{"pointer": "/resources/gpus", "message": "must be a number such as 2, 0.5 or 500m"}]
    cli.api.on("POST", "/jobs", problem(422, "invalid", "x", errors=errors))
    done = cli.run("submit", "--gpus", "nan", "--", "true")
    assert (done.exit_code, done.stderr) == (2, "trellis: resources.gpus must be a number such as 2, 0.5 or 500m\n")


def test_what_is_asked_of_nodes_reaches_the_body(accepted: CommandLine) -> None:
    done = accepted.run(
        "submit", "-C", "zone=north,south", "-C", "!spot", "-C", "cores>8", "--tolerate", "reserved=vision",
        "--pool", "research", "--exclusive", "--within", "rack", "--strategy", "pack", "--no-preempt",
        "--checkpointable", "-N", "2-8", "--gpu-type", "H100,A100", "-G", "1", "--", "true",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    body = sent(accepted)
    assert body["constraints"] == {
        "selector": [
            {"label": "zone", "operator": "in", "values": ["north", "south"]},
            {"label": "spot", "operator": "absent"},
            {"label": "cores", "operator": "above", "values": ["8"]},
        ],
        "tolerates": ["reserved=vision"],
        "pool": "research",
        "exclusive": True,
        "strategy": "pack",
        "topology": {"level": "rack", "required": True},
    }
    said = {key: body[key] for key in ("min_replicas", "max_replicas", "preemptible", "checkpointable")}
    assert said == {"min_replicas": 2, "max_replicas": 8, "preemptible": False, "checkpointable": True}
    assert body["resources"] == {"gpus": "1", "gpu_type": ["H100", "A100"]}


def test_a_submission_in_a_file_is_sent_with_the_options_over_it(accepted: CommandLine) -> None:
    roles = [{"name": "driver", "command": ["drive"]}, {"name": "worker", "replicas": 2, "command": ["work"]}]
    body = {"name": "train", "roles": roles, "constraints": {"pool": "a", "exclusive": True}}
    (accepted.work / "job.json").write_text(json.dumps(body))
    accepted.run("submit", "job.json", "--pool", "b", "--near", "zone")
    constraints = {"pool": "b", "exclusive": True, "topology": {"level": "zone"}}
    assert sent(accepted) == {"name": "train", "roles": roles, "constraints": constraints}


def test_a_count_on_the_command_line_takes_the_place_of_a_range(accepted: CommandLine) -> None:
    (accepted.work / "t.sbatch").write_text("#!/bin/sh\n#SBATCH --nodes=2-4\ntrue\n")
    accepted.run("submit", "t.sbatch", "-N", "3")
    assert (sent(accepted)["replicas"], "max_replicas" in sent(accepted)) == (3, False)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["-C", "zone~north"], "no condition on a label"),
        (["-C", "!zone=north"], "no condition on a label"),
        (["-N", "2-"], "must be such as 4, or 2-8"),
        (["-N", "many"], "must be such as 4, or 2-8"),
        (["--within", "rack", "--near", "zone"], "give one of them"),
    ],
)
def test_an_option_that_cannot_be_understood_says_how_it_can_be(cli: CommandLine, words: list[str], fault: str) -> None:
    done = cli.run("submit", *words, "--", "true")
    assert done.exit_code != 0
    assert fault in " ".join(done.stderr.split())


@pytest.mark.parametrize(("text", "fault"), [("{", "is no JSON"), ("[1]", "must hold an object")])
def test_a_file_that_holds_no_submission_is_named(cli: CommandLine, text: str, fault: str) -> None:
    (cli.work / "job.json").write_text(text)
    done = cli.run("submit", "job.json")
    assert done.exit_code != 0
    assert fault in " ".join(done.stderr.split())
