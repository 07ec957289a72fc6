"""Files from a person's disk to a job and back, through the client and the command."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from tests.support.stack import Stack
from tests.support.world import World
from trellis import Client
from trellis.cli.context import Here
from trellis.cli.root import app
from trellis.errors import QuotaExceeded, Unavailable
from trellis.nouns import artifacts as noun
from trellis.nouns.artifacts import Description
from trellis.stores.local import LocalStore


class Wire(httpx.BaseTransport):
    """To the application in this process; of the next `cuts` uploads only the first half arrives, then it breaks."""

    def __init__(self, stack: Stack) -> None:
        self._inner = httpx.WSGITransport(app=stack.app)
        self.cuts = 0
        self.sent: list[int] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        content = request.read()
        cut = request.method == "PATCH" and self.cuts > 0
        if request.method == "PATCH":
            self.sent.append(len(content))
        headers = dict(request.headers)
        if cut:
            self.cuts -= 1
            content = content[: len(content) // 2]
            headers["content-length"] = str(len(content))
        answer = self._inner.handle_request(
            httpx.Request(request.method, request.url, headers=headers, content=content)
        )
        if cut:
            raise httpx.ReadError("the cable was pulled")
        return answer


@pytest.fixture
def wire(stack: Stack, store: LocalStore) -> Wire:
    return Wire(stack)


@pytest.fixture
def client(stack: Stack, world: World, wire: Wire) -> Client:
    made = Client("http://trellis.test", stack.client(world.member).credential, http=wire)
    made._transport.sleep = lambda _: None
    return made


@pytest.fixture
def job_id(client: Client) -> str:
    return client.jobs.submit(command=["true"]).id


@pytest.fixture
def trellis(client: Client, wire: Wire, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    monkeypatch.setenv("TRELLIS_URL", "http://trellis.test")
    monkeypatch.setenv("TRELLIS_API_KEY", str(client._transport._credential.token(lambda *_: {})))
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, list(words), obj=Here(http=wire))


def test_an_upload_goes_on_over_connections_that_break(
    client: Client, job_id: str, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noun, "PART_BYTES", 400_000)
    content = os.urandom(1_000_000)
    (tmp_path / "w.bin").write_bytes(content)
    wire.cuts, heard = 3, list[int]()
    kept = client.artifacts.put(job_id, tmp_path / "w.bin", progress=heard.append)
    assert wire.sent == [400_000] * 4, "half of each part that was cut arrived, and was not sent again"
    assert (kept.size_bytes, heard[-1]) == (1_000_000, 1_000_000)
    assert client.artifacts.download(job_id, kept, tmp_path / "back").read_bytes() == content
    wire.sent.clear()
    assert client.artifacts.put(job_id, tmp_path / "w.bin").id == kept.id
    assert wire.sent == []


def test_an_upload_that_gets_nowhere_is_given_up_and_goes_on_later(
    client: Client, job_id: str, wire: Wire, tmp_path: Path
) -> None:
    content = os.urandom(100)
    (tmp_path / "w.bin").write_bytes(content)
    wire.cuts = 1000
    with pytest.raises(Unavailable):
        client.artifacts.put(job_id, tmp_path / "w.bin")
    wire.cuts = 0
    assert client.artifacts.put(job_id, tmp_path / "w.bin").size_bytes == 100
    assert wire.sent[-1] < 100


def test_a_folder_is_put_and_fetched_as_it_was(client: Client, job_id: str, tmp_path: Path) -> None:
    files = {"a.txt": b"a", "sub/b.csv": b"1,2", "sub/deep/c.pt": b"", ".hidden": b"x"}
    for name, content in files.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(content)
    (tmp_path / "out" / "link").symlink_to("/etc/passwd")
    kept = list(client.artifacts.put_tree(job_id, tmp_path / "out", "results"))
    assert [one.name for one in kept] == ["results/a.txt", "results/sub/b.csv", "results/sub/deep/c.pt"]
    back = list(client.artifacts.download_tree(job_id, tmp_path / "back", "results/sub"))
    assert [str(path.relative_to(tmp_path / "back")) for path in back] == ["results/sub/b.csv", "results/sub/deep/c.pt"]


def test_the_command_puts_lists_fetches_and_forgets(trellis: Callable[..., Any], job_id: str, tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "loss.png").write_bytes(b"png")
    (tmp_path / "r.html").write_text("<script>")
    put = trellis("artifacts", "put", job_id, "plots", "r.html", "-m", "epoch=3", "-m", "by=me")
    assert (put.exit_code, put.stdout) == (0, "Put 2 files, 11 B.\n"), put.output
    listed = json.loads(trellis("artifacts", job_id, "--json").stdout)
    assert [(one["name"], one["type"]) for one in listed] == [("plots/loss.png", "plot"), ("r.html", "report")]
    assert listed[0]["metadata"] == {"epoch": 3, "by": "me"}
    assert "plots/loss.png" in trellis("artifacts", job_id).stdout
    got = trellis("artifacts", "get", job_id, "plots", "-o", "back")
    assert (got.exit_code, (tmp_path / "back/plots/loss.png").read_bytes()) == (0, b"png"), got.output
    all_of_it = trellis("artifacts", "get", job_id, "-o", "whole")
    assert all_of_it.stdout.splitlines() == ["whole/plots/loss.png", "whole/r.html"]
    trellis("artifacts", "get", job_id, "r.html", "-o", "named.html")
    assert (tmp_path / "named.html").read_text() == "<script>"
    assert trellis("artifacts", "rm", job_id, "plots").stdout == "Forgot 1 file.\n"
    missing = trellis("artifacts", "rm", job_id, "plots")
    assert (missing.exit_code, "this job has no file 'plots'" in missing.output) == (1, True)


def test_a_description_that_can_t_be_is_refused_by_field(client: Client, job_id: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    with pytest.raises(Exception, match=r"/name must be a relative path.*/type must be a word"):
        client.artifacts.put(job_id, tmp_path / "a", Description("../a", type="No Word"))


def test_a_project_that_is_full_says_so_to_the_client(
    client: Client, job_id: str, tmp_path: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(stack.app.extensions, "settings", replace(stack.settings, project_artifact_bytes=1))
    (tmp_path / "a").write_bytes(b"12")
    with pytest.raises(QuotaExceeded, match="no room"):
        client.artifacts.put(job_id, tmp_path / "a")
