"""Places that a source or sink must not reach: other folders, other machines, and files that unfold without end."""

import bz2
import gzip
import lzma
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.support.stage_runs import Workbench
from trellis.runtime.stages import egress
from trellis.runtime.stages.egress import Egress, Refused, enforce
from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.folders import read_dataset


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret.csv").write_text("canary\nSECRET\n")
    return folder


@pytest.mark.parametrize("shape", ["{}/secret.csv", "file://{}/secret.csv", "{}/*.csv", "link/secret.csv", "link.csv"])
def test_no_source_reads_outside_of_its_roots(bench: Workbench, outside: Path, shape: str) -> None:
    (bench.folder / "link").symlink_to(outside)
    (bench.folder / "link.csv").symlink_to(outside / "secret.csv")
    with pytest.raises(StageFailed, match="leads out of what the job may read"):
        bench.run("source", {"from": {"connector": "files", "url": shape.format(outside)}})


def test_a_link_among_many_files_stops_the_source(bench: Workbench, outside: Path) -> None:
    bench.file("raw/1.csv", "a\n1\n")
    (bench.folder / "raw/2.csv").symlink_to(outside / "secret.csv")
    with pytest.raises(StageFailed, match="leads out"):
        bench.run("source", {"from": {"connector": "files", "url": "raw/*.csv"}})


@pytest.mark.parametrize("url", ["{}/made.csv", "link/made.csv", "link", "file://{}/made.csv"])
def test_no_sink_writes_outside_of_its_roots(bench: Workbench, outside: Path, url: str) -> None:
    bench.give("orders", {"id": [1]})
    (bench.folder / "link").symlink_to(outside)
    place = {"connector": "files", "url": url.format(outside), "format": "csv"}
    with pytest.raises(StageFailed, match="leads out"):
        bench.run("sink", {"to": place}, inputs=["orders"])
    assert [path.name for path in outside.iterdir()] == ["secret.csv"]


@pytest.mark.parametrize("path", ["{}/x.db", "link/x.db"])
def test_no_database_file_lies_outside_of_the_roots(bench: Workbench, outside: Path, path: str) -> None:
    (bench.folder / "link").symlink_to(outside)
    bench.give("orders", {"id": [1]})
    place = {"connector": "sqlite", "path": path.format(outside), "table": "t"}
    with pytest.raises(StageFailed, match="leads out"):
        bench.run("sink", {"to": place}, inputs=["orders"])
    assert not (outside / "x.db").exists()


def test_a_data_set_that_names_files_elsewhere_is_refused(bench: Workbench, outside: Path) -> None:
    found = bench.give("orders", {"id": [1]})
    manifest = bench.output("orders") / "dataset.json"
    for name in ("../../outside.parquet", str(outside / "secret.csv"), "part-x.parquet"):
        manifest.write_text(manifest.read_text().replace(found.parts[0].name, name))
        with pytest.raises(StageFailed, match="no part of a data set"):
            read_dataset(bench.output("orders"))
        found = bench.give("orders", {"id": [1]})
    part = Path(found.paths[0])
    part.unlink()
    part.symlink_to(outside / "secret.csv")
    with pytest.raises(StageFailed, match="no plain file"):
        read_dataset(bench.output("orders"))


PACKERS: dict[str, Any] = {
    "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.ZstdCompressor().compress,
}  # fmt: skip


@pytest.mark.parametrize("packing", PACKERS)
def test_a_packed_file_that_unfolds_without_measure_is_stopped(bench: Workbench, packing: str) -> None:
    bench.file(f"bomb.csv.{packing}", PACKERS[packing](b"0\n" * (1 << 19)) * 80)
    with pytest.raises(StageFailed, match="a trap"):
        bench.run("source", {"from": {"connector": "files", "url": f"bomb.csv.{packing}"}})
    assert not list(bench.output("source").glob(".writing-*"))


def test_files_larger_than_the_bound_are_stopped(bench: Workbench) -> None:
    bench.file("a.csv.gz", gzip.compress(b"a\n" + b"0\n" * 1_000_000))
    with pytest.raises(StageFailed, match="most_bytes"):
        bench.run("source", {"from": {"connector": "files", "url": "a.csv.gz"}, "most_bytes": "1MB"})
    for number in range(3):
        bench.file(f"raw/{number}.csv", b"a\n" + b"0\n" * 200_000)
    with pytest.raises(StageFailed, match="most_bytes"):
        bench.run("source", {"from": {"connector": "files", "url": "raw/*.csv"}, "most_bytes": "1MB"})


def test_a_file_that_is_not_what_it_says_is_an_error_in_one_line(bench: Workbench) -> None:
    for name in ("a.parquet", "a.csv.gz", "a.avro", "a.arrow", "a.jsonl"):
        bench.file(name, b"\x00\xffgarbage{{{" + os.urandom(64))
        with pytest.raises(StageFailed) as caught:
            bench.run("source", {"from": {"connector": "files", "url": name}})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%1", "fd00::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "198.18.0.1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(host: str) -> None:
    with pytest.raises(Refused):
        Egress().check(host, 443)


@pytest.mark.parametrize("host", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_may_be_called(host: str) -> None:
    Egress().check(host, 443)


def test_what_the_environment_allows_may_be_called_on_its_port_alone() -> None:
    allowed = Egress.parse("127.0.0.1:9000, 10.0.0.0/8,[fd00::1]:5432, fe80::/10")
    for host, port in [("127.0.0.1", 9000), ("10.9.9.9", 1), ("fd00::1", 5432), ("fe80::2", 80)]:
        allowed.check(host, port)
    for host, port in [("127.0.0.1", 9001), ("192.168.0.1", 1), ("fd00::1", 5433)]:
        with pytest.raises(Refused):
            allowed.check(host, port)
    with pytest.raises(StageFailed, match="no network"):
        Egress.parse("everything")


class _Canary(BaseHTTPRequestHandler):
    heard: list[str]
    answer: tuple[int, dict[str, str], bytes]

    def do_GET(self) -> None:
        self.heard.append(self.path)
        status, headers, body = self.answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def canary() -> Iterator[tuple[int, list[str], type[_Canary]]]:
    handler: Any = type("Canary", (_Canary,), {"heard": [], "answer": (200, {}, b"id\n1\n")})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port, handler.heard, handler
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0.0.0.0", "[::ffff:127.0.0.1]"],
)
def test_however_it_is_written_this_machine_is_not_called(bench: Workbench, canary: Any, host: str) -> None:
    port, heard, _ = canary
    for place in (
        {"connector": "files", "url": f"http://{host}:{port}/a.csv"},
        {"connector": "files", "url": "s3://b/a.csv", "endpoint_url": f"http://{host}:{port}"},
        {"connector": "redis", "host": host.strip("[]"), "port": port, "stream": "s"},
        {"connector": "postgres", "host": host.strip("[]"), "port": port, "database": "d", "user": "u", "table": "t"},
    ):
        with pytest.raises(StageFailed):
            bench.run("source", {"from": place})
    assert heard == []


def test_a_name_that_changes_its_address_is_judged_where_it_leads(
    bench: Workbench, canary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look-up is public, the next one is this machine: what counts is the address that is connected to."""
    port, heard, _ = canary
    looked_up: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: Any, *rest: Any, **more: Any) -> Any:
        if host != "rebinding.example.org":
            return real(host, *rest, **more)
        looked_up.append(host)
        address = "93.184.216.34" if len(looked_up) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    assert Egress().resolve("rebinding.example.org", port) == "93.184.216.34"
    with pytest.raises(StageFailed, match=r"127\.0\.0\.1"):
        bench.run("source", {"from": {"connector": "files", "url": f"http://rebinding.example.org:{port}/a.csv"}})
    assert heard == []


def test_a_redirect_is_judged_as_well(bench: Workbench, canary: Any) -> None:
    port, heard, handler = canary
    handler.answer = (302, {"Location": f"http://127.0.0.2:{port}/inner.csv"}, b"")
    bench.egress = f"127.0.0.1:{port}"
    with pytest.raises(StageFailed, match=r"127\.0\.0\.2"):
        bench.run("source", {"from": {"connector": "files", "url": f"http://127.0.0.1:{port}/a.csv"}})
    assert set(heard) == {"/a.csv"}


def test_what_is_allowed_is_read(bench: Workbench, canary: Any) -> None:
    port, _, _ = canary
    bench.egress = f"127.0.0.1:{port}"
    assert bench.run("source", {"from": {"connector": "files", "url": f"http://127.0.0.1:{port}/a.csv"}}).rows == 1


def test_the_guard_ends_with_the_stage(canary: Any) -> None:
    port, _, _ = canary
    with enforce(Egress()), pytest.raises(Refused):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    assert egress._enforced == []
