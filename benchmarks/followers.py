"""Three hundred people watch: how long after a line was printed does each of them see it?"""

import json
import re
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from benchmarks.bench import Bench, spent
from benchmarks.lines import percentile, say
from benchmarks.stack import BenchError, Stack
from trellis import Client

FOLLOWERS, LINES_S = 300, 1000
WARM_S, MEASURED_S = 4.0, 12.0
CONNECTED_WITHIN_S = 60.0
# Prints its clock, in nanoseconds, so many times a second, in step with the clock and not with its own speed.
_PRINTER = """
import sys, time
rate, end = int(sys.argv[1]), time.time() + 600
due = time.time()
while due < end:
    now = time.time()
    while due <= now:
        print(time.time_ns(), "x" * 60)
        due += 1 / rate
    sys.stdout.flush()
    time.sleep(max(0.0, min(due - time.time(), 0.02)))
"""
_TEXT = b'"text": "'
_STAMP = re.compile(rb"\d{19}")


@dataclass(slots=True)
class Seen:
    """What all followers together received while it counted."""

    lags_s: list[float] = field(default_factory=list)
    lines: int = 0


def measure(bench: Bench) -> None:
    """All on one job, and thirty on each of ten: 1,000 lines a second in total either way."""
    for jobs in (10, 1):
        say(f"{FOLLOWERS} followers of {jobs} jobs")
        with bench.stack.client() as client:
            _measure(bench, client, jobs)


def _measure(bench: Bench, client: Client, jobs: int) -> None:
    command = ["python3", "-c", _PRINTER, str(LINES_S // jobs)]
    running = [client.jobs.submit(command=command).id for _ in range(jobs)]
    try:
        for job in running:
            next(client.jobs.logs(job, follow=True))
        with ExitStack() as stack:
            followers = [
                stack.enter_context(closing(_follow(bench.stack, running[i % jobs]))) for i in range(FOLLOWERS)
            ]
            _watch(followers, WARM_S)
            before = bench.meter.seconds()
            seen = _watch(followers, MEASURED_S)
            used = spent(before, bench.meter.seconds())
    finally:
        for job in running:
            client.jobs.cancel(job, force=True)
        for job in running:
            client.jobs.wait(job, 60)
    bench.printer.times(
        f"followers.lag.{jobs}_jobs", seen.lags_s, followers=FOLLOWERS, p99=round(percentile(seen.lags_s, 99) * 1000, 1),
        printed_per_s=LINES_S, delivered_per_s=round(seen.lines / MEASURED_S),
        cpu_percent={name: round(100 * seconds / MEASURED_S) for name, seconds in used.items()},
    )  # fmt: skip


def _follow(stack: Stack, job: str) -> socket.socket:
    """A connection that is answered with the job's log. Raises BenchError."""
    login = json.loads((stack.home / "client.json").read_text())
    address = urlsplit(login["url"])
    sock = socket.create_connection((address.hostname or "", address.port or 80), timeout=CONNECTED_WITHIN_S)
    request = f"GET /api/v1/jobs/{job}/logs?follow=true&tail=0 HTTP/1.1\r\nHost: {address.netloc}\r\n"
    sock.sendall(f"{request}Authorization: Bearer {login['api_key']}\r\n\r\n".encode())
    if b" 200 " not in (head := sock.recv(64)):
        raise BenchError(f"a follower was answered {head!r}")
    sock.setblocking(False)
    return sock


def _watch(followers: list[socket.socket], for_s: float) -> Seen:
    """Read all of them for so long; of each piece that arrives, the lag of its last line."""
    seen, ends_at = Seen(), time.monotonic() + for_s
    with selectors.DefaultSelector() as selector:
        for sock in followers:
            selector.register(sock, selectors.EVENT_READ)
        while (left := ends_at - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                for lag, lines in _take(key.fileobj):
                    seen.lags_s.append(lag)
                    seen.lines += lines
    return seen


def _take(sock: object) -> Iterator[tuple[float, int]]:
    if not isinstance(sock, socket.socket):
        raise TypeError("a follower is a socket")
    piece = sock.recv(1 << 20)
    if not piece:
        raise BenchError("the server let go of a follower")
    stamp = _STAMP.match(piece, piece.rfind(_TEXT) + len(_TEXT))
    if stamp:
        yield (time.time_ns() - int(stamp[0])) / 1e9, piece.count(_TEXT)
