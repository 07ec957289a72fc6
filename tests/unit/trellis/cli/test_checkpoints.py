import io
import json
import tarfile
from pathlib import Path

import httpx
import pytest

from tests.support.command_line import CommandLine
from tests.support.fake_api import a_job_body, problem, reply

ID = "0193a7b2-1111-7222-8333-444455556666"
ROW = {
    "id": ID, "job_id": "j1", "project_id": "p", "replica": 0, "attempt": 1, "reason": "marked", "step": 40,
    "metrics": {"loss": 0.25}, "files": 1, "size_bytes": 2 << 30, "new_bytes": 40 << 20, "stored_bytes": 30 << 20,
    "damaged": False, "created_at": "2026-01-31T12:00:00+00:00", "url": "file:///store/manifests/x",
}  # fmt: skip


def archive(content: bytes = b"weights") -> bytes:
    block = io.BytesIO()
    with tarfile.open(fileobj=block, mode="w") as made:
        info = tarfile.TarInfo("deep/model.bin")
        info.size = len(content)
        made.addfile(info, io.BytesIO(content))
    return block.getvalue()


@pytest.mark.parametrize("words", [["checkpoints", "j1"], ["checkpoints", "list", "j1"]])
def test_the_list_says_what_is_new_and_what_that_took(cli: CommandLine, words: list[str]) -> None:
    cli.api.on("GET", "/jobs/j1/checkpoints", reply({"items": [ROW], "next_cursor": None}))
    heading, line = cli.run(*words).stdout.splitlines()
    assert heading.split() == ["ID", "STEP", "SIZE", "NEW", "METRICS", "SAVED"]
    assert line.split()[:8] == [ID, "40", "2.0", "GiB", "40.0", "MiB", "loss", "0.25"]


def test_asking_says_what_comes_next(cli: CommandLine) -> None:
    cli.api.on("POST", "/jobs/j1/checkpoints", reply(a_job_body(id="j1"), 202))
    assert "trellis checkpoints j1" in cli.run("checkpoint", "j1").stdout


def test_asking_a_job_that_saves_nothing_tells_the_way_out(cli: CommandLine) -> None:
    cli.api.on("POST", "/jobs/j1/checkpoints", problem(409, "not_checkpointed", "submit it with `--checkpoint`"))
    done = cli.run("checkpoint", "j1")
    assert done.exit_code == 1
    assert "--checkpoint" in done.stderr


def test_a_download_is_whole_or_absent(cli: CommandLine, tmp_path: Path) -> None:
    cli.api.on("GET", f"/checkpoints/{ID}", reply(ROW))
    cli.api.on("GET", f"/checkpoints/{ID}/archive", httpx.Response(200, content=archive()))
    done = cli.run("checkpoints", "download", ID, str(tmp_path / "model"))
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "model/deep/model.bin").read_bytes() == b"weights"
    again = cli.run("checkpoints", "download", ID, str(tmp_path / "model"))
    assert again.exit_code != 0
    cli.api.on("GET", f"/checkpoints/{ID}/archive", httpx.Response(200, content=archive(bytes(3000))[:1500]))
    assert cli.run("checkpoints", "download", ID, str(tmp_path / "torn")).exit_code == 1
    assert not (tmp_path / "torn").exists()


def test_what_was_submitted_says_how_often_and_from_where(cli: CommandLine) -> None:
    cli.api.on("POST", "/jobs", reply(a_job_body(), 201))
    cli.run("submit", "--checkpoint-every", "90s", "--from-checkpoint", ID, "--", "true")
    cli.run("submit", "--checkpoint", "--", "true")
    first, second = cli.api.bodies("POST", "/jobs")
    assert (first["checkpoint"], first["from_checkpoint"]) == ({"every": 90}, ID)
    assert second["checkpoint"] == {"every": 600}
    refused = cli.run("submit", "--checkpoint-every", "often", "--", "true")
    assert "--checkpoint-every" in refused.stderr


def test_removing_and_sharing_reach_the_server(cli: CommandLine) -> None:
    for verb in ("PUT", "DELETE"):
        cli.api.on(verb, f"/checkpoints/{ID}/grants/p2", reply(status=204))
    cli.api.on("DELETE", f"/checkpoints/{ID}", reply(status=204))
    for words in (["share", ID, "p2"], ["unshare", ID, "p2"], ["remove", ID, "--json"]):
        assert cli.run("checkpoints", *words).exit_code == 0
    assert json.loads(cli.run("checkpoints", "remove", ID, "--json").stdout) == [ID]


TICKET = "trellis-ticket-1.abc.def"


def test_a_ticket_is_printed_so_that_it_can_be_piped(cli: CommandLine) -> None:
    said = {"ticket": TICKET, "until": "2026-02-07T12:00:00+00:00"}
    cli.api.on("POST", f"/checkpoints/{ID}/exports", reply(said, 201))
    assert cli.run("checkpoints", "export", ID, "--for", "2d").stdout == f"{TICKET}\n"
    assert json.loads(cli.api.asked[-1].content) == {"for": "2d"}


def test_an_import_says_how_to_go_on_from_it(cli: CommandLine) -> None:
    cli.api.on("POST", "/checkpoints/imports", reply(ROW | {"job_id": None, "cluster": "north"}, 201))
    done = cli.run("checkpoints", "import", TICKET, "--project", "mine")
    assert json.loads(cli.api.asked[-1].content) == {"ticket": TICKET, "project": "mine"}
    assert "north" in done.stdout
    assert f"--from-checkpoint {ID}" in done.stdout


def test_a_ticket_is_read_from_a_pipe(cli: CommandLine) -> None:
    cli.api.on("POST", "/checkpoints/imports", reply(ROW | {"job_id": None, "cluster": "north"}, 201))
    assert cli.run("checkpoints", "import", "-", typed=f"{TICKET}\n").exit_code == 0
    assert json.loads(cli.api.asked[-1].content) == {"ticket": TICKET}


def test_imports_are_listed_with_where_they_are_from_and_for_how_long(cli: CommandLine) -> None:
    row = ROW | {"job_id": None, "cluster": "north", "until": "2026-02-07T12:00:00+00:00"}
    cli.api.on("GET", "/checkpoints/imports", reply({"items": [row], "next_cursor": None}))
    heading, line = cli.run("checkpoints", "imported").stdout.splitlines()
    assert heading.split() == ["ID", "CLUSTER", "STEP", "SIZE", "UNTIL"]
    assert line.split()[:3] == [ID, "north", "40"]


def test_the_key_is_printed_as_the_other_operator_sets_it(cli: CommandLine) -> None:
    cli.api.on("GET", "/checkpoints/key", reply({"public_key": "a" * 64, "store_url": "s3://north/store"}))
    assert cli.run("checkpoints", "key", "--name", "north").stdout == f"north={'a' * 64}@s3://north/store\n"
