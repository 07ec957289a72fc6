import re

import httpx

from tests.support.platform import Platform
from tests.support.services import wait_until


def test_flower_shows_workers_and_readable_tasks_to_the_administrator_and_to_nobody_else(platform: Platform) -> None:
    platform.run_job("/bin/true")
    url = f"http://127.0.0.1:{platform.flower_port}"
    for path in ("/", "/api/workers", "/api/tasks", "/tasks"):
        assert httpx.get(url + path).status_code in (302, 401), path
    with httpx.Client(base_url=url, timeout=20) as browser:
        (xsrf,) = re.findall(r'name="_xsrf" value="([^"]+)"', browser.get("/login").text)
        form = {"_xsrf": xsrf, "username": "admin", "password": platform.password, "next": "/workers"}
        assert browser.post("/login", data=form).status_code == 302
        wait_until(lambda: len(workers(browser)) >= 2, 30, "both workers to be seen")
        assert {name.partition("@")[0] for name in workers(browser)} >= {"control", "node-node-1"}
        expected = {"tasks.node.launch_replicas", "tasks.scheduling.run_cycle"}

        def seen() -> bool:
            platform.run_job("/bin/true")
            return expected <= {task["name"] for task in browser.get("/api/tasks").json().values()}

        wait_until(seen, 30, "the tasks of a job to be seen by their names")


def workers(browser: httpx.Client) -> dict[str, object]:
    found: dict[str, object] = browser.get("/api/workers", params={"refresh": "1"}).json()
    return found
