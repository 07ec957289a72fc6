"""`trellis server`: what images and hand-made platforms start with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.server import server
from tests.support.databases import create_database
from tests.support.services import Services
from tests.support.stack import SECRET_KEY, Stack
from trellis.errors import AlreadyExists, Invalid, Unavailable
from trellis.settings import SettingsError

PASSWORD = "a password of some length"


@pytest.fixture
def database(services: Services, worker_id: str, monkeypatch: pytest.MonkeyPatch) -> str:
    url = create_database(services.database_url, f"server_{worker_id}")
    monkeypatch.setenv("TRELLIS_DATABASE_URL", url)
    monkeypatch.setenv("TRELLIS_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("TRELLIS_SECRET_KEY", SECRET_KEY)
    return url


@pytest.fixture
def platform(database: str) -> Iterator[Stack]:
    call("migrate")
    platform = Stack(database)
    yield platform
    platform.close()


def call(*words: str, stdin: str = "") -> str:
    result = CliRunner().invoke(server, words, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def sign_in(platform: Stack, username: str, password: str) -> int:
    body = {"username": username, "password": password}
    return platform.client().post("/auth/token", body).status


def test_the_first_administrator_signs_in_with_the_password_that_was_piped(platform: Stack) -> None:
    call("create-admin", "--username", "ada", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert sign_in(platform, "ada", PASSWORD) == 200


def test_a_second_administrator_can_be_made(platform: Stack) -> None:
    call("create-admin", "--password-stdin", stdin=f"{PASSWORD}\n")
    password = call("create-admin", "--username", "grace").strip()
    assert sign_in(platform, "grace", password) == 200


def test_an_administrator_is_not_made_over_somebody_who_is_there(platform: Stack) -> None:
    call("create-admin")
    with pytest.raises(AlreadyExists):
        call("create-admin")


def test_a_short_password_is_refused(platform: Stack) -> None:
    with pytest.raises(Invalid):
        call("create-admin", "--password-stdin", stdin="short\n")


def test_bootstrapping_writes_a_password_once_and_join_tokens_each_time(database: str, tmp_path: Path) -> None:
    arguments = ("bootstrap", "--write-to", str(tmp_path), "--node", "node-1", "--node", "node-2")
    call(*arguments)
    password, first = (tmp_path / "admin" / "password"), (tmp_path / "join" / "node-1").read_text()
    platform = Stack(database)
    assert sign_in(platform, "admin", password.read_text().strip()) == 200
    platform.close()
    password.unlink()
    call(*arguments)
    assert not password.exists()
    assert (tmp_path / "join" / "node-1").read_text() != first


def test_what_bootstrapping_writes_is_for_its_owner_alone(database: str, tmp_path: Path) -> None:
    call("bootstrap", "--write-to", str(tmp_path), "--node", "node-1")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in written)


def test_a_folder_that_cannot_be_written_is_named(database: str, tmp_path: Path) -> None:
    (tmp_path / "admin").write_text("a file in the way")
    with pytest.raises(SettingsError, match="admin"):
        call("bootstrap", "--write-to", str(tmp_path))


def test_a_database_that_does_not_answer_is_said(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRELLIS_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(Unavailable, match="does not answer"):
        call("migrate")
