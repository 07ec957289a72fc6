"""Flower, a real process of it: closed to everybody but platform administrators."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from werkzeug.serving import make_server

from app.cli.ports import free_port
from tests.support.builders import PASSWORD
from tests.support.services import Services, wait_until
from tests.support.stack import SECRET_KEY, Stack
from tests.support.world import World

ROOT = Path(__file__).parents[2]
CLOSED = [
    "/", "/workers", "/tasks", "/broker", "/worker/x", "/task/x", "/tasks/datatable", "/metrics", "/api/workers",
    "/api/tasks", "/api/task/types", "/api/queues/length", "/api/task/info/x",
]  # fmt: skip
ACTIONS = ["/api/task/send-task/tasks.jobs.sweep", "/api/worker/shutdown/x", "/api/task/revoke/x", "/api/task/apply/x"]


@pytest.fixture(scope="module")
def api_url(_stack: Stack) -> Iterator[str]:
    """The API on a real port."""
    server = make_server("127.0.0.1", 0, _stack.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()


@pytest.fixture(scope="module")
def flower_url(services: Services, api_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Flower as the platform starts it."""
    port, log = free_port(), tmp_path_factory.mktemp("flower") / "log"
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TRELLIS_BROKER_URL": services.broker_url,
        "TRELLIS_SECRET_KEY": SECRET_KEY, "TRELLIS_PUBLIC_URL": api_url,
    }  # fmt: skip
    argv = [sys.executable, "-m", "celery", "-A", "tasks.flower", "flower", f"--port={port}"]
    with log.open("w") as output:
        process = subprocess.Popen(argv, env=environment, cwd=log.parent, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{url}/healthcheck").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, 60, "Flower")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def sign_in(url: str, username: str, password: str = PASSWORD) -> tuple[httpx.Client, httpx.Response]:
    """Fill in the form as a browser would."""
    browser = httpx.Client(base_url=url, timeout=20)
    form = browser.get("/login").text
    (xsrf,) = re.findall(r'name="_xsrf" value="([^"]+)"', form)
    body = {"_xsrf": xsrf, "username": username, "password": password, "next": "/tasks"}
    return browser, browser.post("/login", data=body)


def test_nobody_sees_anything(flower_url: str) -> None:
    for path in CLOSED:
        answer = httpx.get(flower_url + path)
        assert answer.status_code in (302, 401, 403), path
        assert answer.status_code != 302 or answer.headers["location"].startswith("/login"), path
    for path in ACTIONS:
        assert httpx.post(flower_url + path, json={}).status_code == 403, path


def test_a_platform_administrator_is_let_in(stack: Stack, world: World, flower_url: str) -> None:
    browser, answer = sign_in(flower_url, world.admin.username)
    assert (answer.status_code, answer.headers["location"]) == (302, "/tasks")
    assert "samesite=strict" in answer.headers["set-cookie"].lower()
    assert "httponly" in answer.headers["set-cookie"].lower()
    for path in ("/tasks", "/api/workers", "/metrics"):
        assert browser.get(path).status_code == 200, path


def test_nobody_else_is_let_in(stack: Stack, world: World, flower_url: str) -> None:
    for username, password in (
        (world.member.username, PASSWORD), (world.project_admin.username, PASSWORD), (world.admin.username, "wrong"),
        ("nobody", PASSWORD), ("", ""),
    ):  # fmt: skip
        browser, answer = sign_in(flower_url, username, password)
        assert answer.status_code == 401
        assert browser.get("/tasks").status_code == 302


def test_a_form_without_its_token_is_refused(stack: Stack, world: World, flower_url: str) -> None:
    body = {"username": world.admin.username, "password": PASSWORD}
    assert httpx.post(f"{flower_url}/login", data=body).status_code == 403


def test_a_forged_cookie_is_refused(flower_url: str) -> None:
    for value in ("admin", "nobody@", "2|1:0|10:1|4:user|8:bm9ib2R5QA==|0"):
        assert httpx.get(f"{flower_url}/tasks", cookies={"user": value}).status_code == 302


def test_the_page_leads_nowhere_else_and_loads_nothing_from_elsewhere(flower_url: str) -> None:
    page = httpx.get(f"{flower_url}/login", params={"next": '//evil.example/"><script>'})
    assert "evil.example" not in page.text
    assert "<script" not in page.text
    assert not re.search(r"(?:src|href)=", page.text)
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
