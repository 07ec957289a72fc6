import json
import re
import stat

import pytest

from tests.support.command_line import CommandLine
from tests.support.fake_api import URL, problem, reply

ME = {
    "kind": "user",
    "id": "u1",
    "name": "ada",
    "projects": [{"name": "vision", "role": "member", "organisation": "acme"}],
}


@pytest.fixture
def stranger(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.delenv("TRELLIS_URL")
    monkeypatch.delenv("TRELLIS_API_KEY")
    cli.api.on("POST", "/auth/token", reply({"access_token": "jwt", "refresh_token": "r", "expires_in": 600}))
    cli.api.on("GET", "/auth/whoami", reply(ME))
    cli.api.on("POST", "/api-keys", reply({"id": "k1", "key": "tk_new"}, 201))
    return cli


def saved(cli: CommandLine) -> dict[str, object]:
    file = cli.home / ".config" / "trellis" / "config.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    stored: dict[str, object] = json.loads(file.read_text())
    return stored


@pytest.mark.parametrize(
    ("words", "typed"),
    [([], "ada\npw\n"), (["-u", "ada"], "pw\n"), (["--username", "ada", "--password-stdin"], "pw\n")],
)
def test_signing_in_keeps_a_key_for_this_machine_and_not_the_password(
    stranger: CommandLine, words: list[str], typed: str
) -> None:
    done = stranger.run("login", URL, *words, typed=typed)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.endswith(f"Signed in to {URL} as ada.\n")
    assert "pw" not in done.stdout + done.stderr
    assert saved(stranger) == {"url": URL, "api_key": "tk_new", "key_id": "k1"}
    assert stranger.api.bodies("POST", "/auth/token") == [{"username": "ada", "password": "pw"}]
    name = stranger.api.bodies("POST", "/api-keys")[0]["name"]
    assert re.fullmatch(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", name)


def test_after_signing_in_commands_use_the_key(stranger: CommandLine) -> None:
    stranger.run("login", URL, "-u", "ada", "--password-stdin", typed="pw\n")
    assert stranger.run("whoami").exit_code == 0
    assert stranger.api.asked[-1].headers["Authorization"] == "Bearer tk_new"


@pytest.mark.parametrize("given", ["tk_given", "-"])
def test_a_key_that_one_has_will_do(stranger: CommandLine, given: str) -> None:
    assert stranger.run("login", URL, "--api-key", given, typed="tk_given\n").exit_code == 0
    assert saved(stranger) == {"url": URL, "api_key": "tk_given", "key_id": None}


def test_a_refused_key_is_not_kept(stranger: CommandLine) -> None:
    stranger.api.on("GET", "/auth/whoami", problem(401, "unauthenticated", "no such key"))
    assert stranger.run("login", URL, "--api-key", "tk_bad").exit_code == 1
    assert not (stranger.home / ".config").exists()


def test_a_password_over_an_open_line_is_warned_of(stranger: CommandLine) -> None:
    done = stranger.run("login", URL, "--api-key", "tk")
    assert "Beware: http://trellis.test is not encrypted" in done.stderr


def test_signing_out_withdraws_the_key_and_forgets_it(stranger: CommandLine) -> None:
    stranger.run("login", URL, "-u", "ada", "--password-stdin", typed="pw\n")
    stranger.api.on("DELETE", "/api-keys/k1", reply(None, 204))
    assert stranger.run("logout").stdout == f"Signed out of {URL}.\n"
    assert stranger.api.asked[-1].method == "DELETE"
    assert not (stranger.home / ".config" / "trellis" / "config.json").exists()
    assert stranger.run("logout").stdout == "You are not signed in.\n"


@pytest.mark.parametrize(
    "answer", [problem(404, "not_found"), problem(401, "unauthenticated"), problem(403, "forbidden")]
)
def test_signing_out_works_though_the_key_cannot_be_withdrawn(stranger: CommandLine, answer: object) -> None:
    stranger.run("login", URL, "-u", "ada", "--password-stdin", typed="pw\n")
    stranger.api.on("DELETE", "/api-keys/k1", answer)  # type: ignore[arg-type]
    assert stranger.run("logout").exit_code == 0


def test_a_damaged_file_is_one_line(stranger: CommandLine) -> None:
    file = stranger.home / ".config" / "trellis" / "config.json"
    file.parent.mkdir(parents=True)
    file.write_text("{")
    done = stranger.run("whoami")
    assert done.exit_code == 1
    assert done.stderr == f"trellis: {file} is damaged: delete it and run `trellis login` again\n"


def test_whoami_says_who_and_where(cli: CommandLine) -> None:
    cli.api.on("GET", "/auth/whoami", reply({**ME, "platform_admin": True}))
    done = cli.run("whoami")
    assert done.stdout.splitlines()[0] == f"ada (user, platform administrator) at {URL}"
    assert done.stdout.splitlines()[2].split()[:3] == ["vision", "acme", "member"]
