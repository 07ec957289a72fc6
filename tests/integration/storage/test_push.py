"""Directories from a person's disk to the API and back, through the client and the command."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from tests.support.code import a_manifest, write
from tests.support.stack import Stack
from tests.support.world import World
from trellis import Client
from trellis.bundles.scanning import scan
from trellis.cli.context import Here
from trellis.cli.root import app
from trellis.errors import Conflict, Invalid, NotFound
from trellis.nouns import bundles as noun
from trellis.stores.local import LocalStore

FILES = {"train.py": b"print(1)", "lib/a.py": b"A = 1", "lib/same.py": b"A = 1", "empty": b""}
URL = "http://trellis.test"


class Wire(httpx.BaseTransport):
    """To the application in this process, remembering what passed; `breaks` bodies are lost on their way."""

    def __init__(self, stack: Stack) -> None:
        self._inner = httpx.WSGITransport(app=stack.app)
        self.sent: list[tuple[str, str, int]] = []
        self.breaks = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        size = len(request.read())
        self.sent.append((request.method, request.url.path.removeprefix("/api/v1"), size))
        if self.breaks and request.url.path.endswith("/blobs"):
            self.breaks -= 1
            raise httpx.WriteError("the cable was pulled")
        # WSGI servers hand over whole bodies of a known length; this one too.
        return self._inner.handle_request(
            httpx.Request(request.method, request.url, headers=request.headers, content=request.content)
        )

    def bodies(self) -> list[int]:
        return [size for _, path, size in self.sent if path == "/bundles/blobs"]


@pytest.fixture
def wire(stack: Stack, store: LocalStore) -> Wire:
    return Wire(stack)


@pytest.fixture
def client(stack: Stack, world: World, wire: Wire) -> Iterator[Client]:
    with Client(URL, stack.client(world.member).credential, http=wire) as made:
        made._transport.sleep = lambda _: None
        yield made


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = write(tmp_path / "project", FILES)
    (folder / "link").symlink_to("lib/a.py")
    return folder


def test_a_directory_is_sent_and_comes_back_the_same(client: Client, here: Path, tmp_path: Path) -> None:
    bundle = client.bundles.push(here)
    assert (bundle.name, bundle.files, bundle.digest) == ("project", 5, scan(here).manifest.digest)
    assert client.bundles.files(bundle) == scan(here).manifest
    back = client.bundles.download(bundle.id, tmp_path / "back")
    assert scan(back).manifest == scan(here).manifest
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_unchanged_files_are_sent_once(client: Client, here: Path, wire: Wire) -> None:
    first = client.bundles.push(here)
    assert len(wire.bodies()) == 1
    assert client.bundles.push(here).id == first.id
    assert len(wire.bodies()) == 1
    write(here, {"train.py": b"print(2)"})
    assert client.bundles.push(here).id != first.id
    assert wire.bodies()[1:] == [40 + len(b"print(2)")]


def test_a_broken_connection_is_taken_up_again(client: Client, here: Path, wire: Wire) -> None:
    wire.breaks = 2
    assert client.bundles.push(here).files == 5


def test_much_travels_in_several_requests_and_goes_on_where_it_stopped(
    client: Client, here: Path, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noun, "REQUEST_BYTES", 1000)
    write(here, {f"f{number}": bytes([number]) * 600 for number in range(6)})
    wire.breaks = 0
    client.bundles.push(here)
    assert len(wire.bodies()) >= 6
    assert max(wire.bodies()) < 1100


def test_progress_counts_what_is_read_and_what_is_sent(client: Client, here: Path) -> None:
    told: list[tuple[str, int, int]] = []
    client.bundles.push(here, progress=lambda *what: told.append(what))
    reads, sends = ([t[1:] for t in told if t[0] == word] for word in ("reading", "sending"))
    assert reads[-1] == (18, 18)
    assert sends[-1] == (13, 13)
    assert sends == sorted(sends)


def test_what_vanishes_each_time_is_not_sent_for_ever(
    client: Client, here: Path, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        client._transport, "json", lambda call: {"bundle": None, "missing": [*scan(here).manifest.blobs]}
    )
    with pytest.raises(Conflict, match="5 times"):
        client.bundles.push(here)


def test_a_download_goes_nowhere_that_is_taken(client: Client, here: Path) -> None:
    bundle = client.bundles.push(here)
    with pytest.raises(Invalid, match="is there already"):
        client.bundles.download(bundle, here)


def test_a_bundle_is_listed_found_and_forgotten(client: Client, here: Path) -> None:
    bundle = client.bundles.push(here)
    assert [one.id for one in client.bundles.list()] == [client.bundles.get(bundle).id]
    client.bundles.delete(bundle)
    with pytest.raises(NotFound):
        client.bundles.get(bundle)


# The command


@pytest.fixture
def run(stack: Stack, world: World, wire: Wire, here: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(here)
    for name, value in {"HOME": str(here.parent), "TRELLIS_URL": URL, "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TRELLIS_API_KEY", str(stack.client(world.member).credential))
    monkeypatch.delenv("TRELLIS_HOME", raising=False)
    return lambda *words: CliRunner().invoke(app, list(words), obj=Here(http=wire), prog_name="trellis")


def _submitted(client: Client) -> dict[str, Any]:
    job = client.jobs.get(next(client.jobs.list()), verbose=True)
    return {**job.spec, "bundle": job.bundle and job.bundle["digest"]}


def test_a_script_of_the_directory_runs_where_it_lies(run: Any, client: Client, here: Path) -> None:
    done = run("submit", "--dir", ".", "lib/a.py", "--", "--epochs", "3")
    assert done.exit_code == 0, done.stderr
    assert "Code: 5 files, 18 B, bundle " in done.stderr
    spec = _submitted(client)
    assert (spec["command"], spec["script"]) == (["python", "lib/a.py", "--epochs", "3"], None)
    assert spec["bundle"] == scan(here).manifest.digest


def test_a_batch_script_of_the_directory_keeps_its_directives(run: Any, client: Client, here: Path) -> None:
    write(here, {"jobs/go.sbatch": b"#!/bin/bash -e\n#SBATCH -J named -t 5\npython train.py\n"})
    assert run("submit", "-D", ".", "jobs/go.sbatch").exit_code == 0
    spec = _submitted(client)
    assert (spec["name"], spec["time_limit_s"]) == ("named", 300)
    assert spec["command"] == ["/bin/bash", "-e", "jobs/go.sbatch"]


def test_a_script_from_elsewhere_goes_along(run: Any, client: Client, here: Path) -> None:
    write(here.parent, {"other.sh": b"ls\n"})
    assert run("submit", "-D", ".", "../other.sh").exit_code == 0
    spec = _submitted(client)
    assert (spec["command"], spec["script"], spec["script_name"]) == (None, "ls\n", "other.sh")
    assert spec["bundle"]


def test_requirements_of_the_directory_are_named_and_others_are_sent_by_themselves(
    run: Any, client: Client, here: Path
) -> None:
    write(here, {"env/requirements.txt": b"numpy==2.1.0\n"})
    assert run("submit", "-D", ".", "-r", "env/requirements.txt", "--", "true").exit_code == 0
    job = next(client.jobs.list())
    assert job.bundle is not None
    assert (job.bundle["files"], job.bundle["requirements"]) == (6, "env/requirements.txt")
    assert run("submit", "-r", "env/requirements.txt", "--", "true").exit_code == 0
    job = next(client.jobs.list())
    assert job.bundle is not None
    assert (job.bundle["files"], job.bundle["requirements"]) == (1, "requirements.txt")


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        (b"-e .\n", (), "line 1 ('-e .') is an option"),
        (b"\xff", (), "can't decode"),
        (b"numpy\n", ("--dir", "lib"), "must lie in the directory"),
        (None, (), "No such file"),
    ],
)
def test_requirements_that_make_no_environment_are_explained_before_anything_is_sent(
    run: Any, client: Client, wire: Wire, here: Path, content: bytes | None, words: tuple[str, ...], said: str
) -> None:
    if content is not None:
        write(here, {"r.txt": content})
    done = run("submit", *words, "-r", "r.txt", "--", "true")
    assert (done.exit_code, said in done.stderr) == (2, True), done.stderr
    assert list(client.jobs.list()) == []


def test_a_dry_run_sends_nothing(run: Any, client: Client, wire: Wire) -> None:
    done = run("submit", "--dir", ".", "--dry-run", "train.py")
    assert "of which nothing was sent" in done.stderr, done.stderr
    assert wire.bodies() == []
    assert list(client.bundles.list()) == []


def test_bundles_are_pushed_listed_shown_downloaded_and_deleted(run: Any, client: Client, here: Path) -> None:
    made = run("bundles", "push", ".").stdout.strip()
    digest = client.bundles.get(made).digest
    assert digest[:12] in run("bundles").stdout
    assert "link -> lib/a.py" in run("bundles", "show", digest[:8]).stdout
    assert '"path": "empty"' in run("bundles", "show", made, "--json").stdout
    assert run("bundles", "download", digest[:8], "../back").stdout == "Wrote 5 files to ../back.\n"
    assert run("submit", "--bundle", made, "--", "true").exit_code == 0
    refused = run("bundles", "delete", digest[:8])
    assert (refused.exit_code, "has not ended" in refused.stderr) == (1, True)
    client.jobs.cancel(next(client.jobs.list()))
    assert run("bundles", "delete", made).stdout == "Forgot 1.\n"
    assert run("bundles").stdout == "No code is kept.\n"


@pytest.mark.parametrize(("word", "said"), [("ab", "at least 4"), ("ffffffff", "there is no bundle")])
def test_a_word_that_names_no_bundle_is_explained(run: Any, word: str, said: str) -> None:
    assert said in run("bundles", "show", word).stderr


def test_a_directory_and_a_bundle_are_one_too_many(run: Any) -> None:
    done = run("submit", "--dir", ".", "--bundle", "x", "--", "true")
    assert (done.exit_code, "give one of them" in done.stderr) == (2, True)


def test_what_cant_be_sent_is_named_and_no_job_is_made(run: Any, client: Client, here: Path) -> None:
    (here / "out").symlink_to("/etc")
    done = run("submit", "--dir", ".", "train.py")
    assert (done.exit_code, "'out' points to '/etc'" in done.stderr) == (2, True)
    assert list(client.jobs.list()) == []


def test_the_manifest_is_the_same_on_both_sides(here: Path) -> None:
    (here / "link").unlink()
    assert scan(here).manifest.digest == a_manifest(FILES).digest
