"""Jobs that run with packages of their own. Nothing here is fetched from anywhere."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from agent import environments
from tests.integration.agent.conftest import Node
from tests.support.agent_api import ControlPlane, a_spec, wait_until
from tests.support.wheels import a_wheel, hash_of
from trellis.vocabulary import Cause, Isolation, ReplicaState, StopReason
from trellis.wire import Code, ReplicaSpec

SHOW = "import sys, tiny; print(tiny.VALUE, sys.prefix != sys.base_prefix)"


@pytest.fixture
def wheels(home: Path) -> Path:
    folder = home.parent / "wheels"
    a_wheel(folder)
    return folder


@pytest.fixture
def node(make_node: Callable[..., Node], wheels: Path) -> Node:
    return make_node(package_links=str(wheels))


@pytest.fixture(params=[Isolation.NAMESPACES, Isolation.LANDLOCK])
def confined(request: pytest.FixtureRequest, make_node: Callable[..., Node], wheels: Path) -> Node:
    return make_node(request.param, package_links=str(wheels))


def a_job(plane: ControlPlane, name: str, wants: str, *command: str, **changes: Any) -> ReplicaSpec:
    """One whose code is its requirements."""
    code = plane.give_code(name, {"requirements.txt": wants.encode()})
    code = Code(code.digest, code.size_bytes, code.files, "requirements.txt")
    return a_spec(name, *(command or ("python", "-c", SHOW)), code=code, **changes)


def said(plane: ControlPlane, name: str) -> str:
    return "\n".join(plane.lines(name, "s"))


def test_a_job_runs_with_the_packages_that_it_names_and_not_with_the_nodes(confined: Node, plane: ControlPlane) -> None:
    script = f"{SHOW}\ntry:\n    import psutil\nexcept ImportError: print('alone')\nfrom trellis import runtime\n"
    confined.run(a_job(plane, "r1", "tiny", "python", "-c", script))
    assert plane.end_of("r1").exit_code == 0, plane.logs["r1"]
    assert plane.lines("r1") == ["1 True", "alone"]
    assert "building the environment of requirements.txt" in said(plane, "r1")
    assert "the environment is built" in said(plane, "r1")


def test_a_script_of_python_runs_in_the_environment(node: Node, plane: ControlPlane) -> None:
    spec = a_job(plane, "r1", "tiny", "x")
    node.run(a_spec("r1", script=SHOW, script_name="show.py", code=spec.code))
    assert plane.end_of("r1").exit_code == 0, plane.logs["r1"]
    assert plane.lines("r1") == ["1 True"]


def test_equal_requirements_are_built_once_and_others_for_themselves(
    node: Node, plane: ControlPlane, wheels: Path
) -> None:
    a_wheel(wheels, version="2.0", module="VALUE = 2")
    for name, wants in (("r1", "tiny==1.0"), ("r2", "tiny==1.0"), ("r3", "tiny==2.0")):
        node.run(a_job(plane, name, wants))
        assert plane.end_of(name).exit_code == 0, plane.logs[name]
    assert ["building" in said(plane, name) for name in ("r1", "r2", "r3")] == [True, False, True]
    assert [plane.lines(name) for name in ("r1", "r2", "r3")] == [["1 True"], ["1 True"], ["2 True"]]


def test_many_at_once_build_one(node: Node, plane: ControlPlane) -> None:
    names = [f"r{number}" for number in range(6)]
    node.run(*(a_job(plane, name, "tiny") for name in names))
    for name in names:
        assert plane.end_of(name, 60).exit_code == 0, plane.logs[name]
    assert sum("building" in said(plane, name) for name in names) == 1


def test_a_job_cant_change_the_environment_that_others_share(confined: Node, plane: ControlPlane) -> None:
    spoil = "import tiny, os; os.chmod(tiny.__file__, 0o666); open(tiny.__file__, 'w').write('VALUE = 13')"
    confined.run(a_job(plane, "r1", "tiny", "python", "-c", spoil))
    assert plane.end_of("r1").exit_code != 0
    remove = "import tiny, os; os.unlink(tiny.__file__)"
    confined.run(a_job(plane, "r2", "tiny", "python", "-c", remove))
    assert plane.end_of("r2").exit_code != 0
    confined.run(a_job(plane, "r3", "tiny"))
    assert plane.end_of("r3").exit_code == 0
    assert plane.lines("r3") == ["1 True"]


def test_hashes_are_checked(node: Node, plane: ControlPlane, wheels: Path) -> None:
    (wheel,) = wheels.iterdir()
    node.run(a_job(plane, "r1", f"tiny==1.0 {hash_of(wheel)}"))
    assert plane.end_of("r1").exit_code == 0, plane.logs["r1"]
    node.run(a_job(plane, "r2", f"tiny==1.0 --hash=sha256:{'0' * 64}"))
    end = plane.end_of("r2")
    assert (end.state, end.cause) == (ReplicaState.FAILED, Cause.ENVIRONMENT_FAILED)
    assert "hash" in end.message.lower()


def test_what_cant_be_had_is_told_with_the_last_words_of_the_build(node: Node, plane: ControlPlane) -> None:
    node.run(a_job(plane, "r1", "there-is-no-such-package"))
    end = plane.end_of("r1")
    assert end.cause is Cause.ENVIRONMENT_FAILED
    assert "there-is-no-such-package" in end.message
    assert "there-is-no-such-package" in said(plane, "r1")
    assert end.exit_code is None


def test_those_who_wait_for_a_build_that_fails_do_not_build_it_again(node: Node, plane: ControlPlane) -> None:
    names = [f"r{number}" for number in range(4)]
    node.run(*(a_job(plane, name, "there-is-no-such-package") for name in names))
    for name in names:
        assert plane.end_of(name, 60).cause is Cause.ENVIRONMENT_FAILED
    assert sum("building" in said(plane, name) for name in names) < len(names)
    node.run(a_job(plane, "later", "there-is-no-such-package"))
    plane.end_of("later")
    assert "building" in said(plane, "later")


def test_nothing_is_built_that_would_run_code_while_it_is(node: Node, plane: ControlPlane, wheels: Path) -> None:
    source = wheels / "source"
    source.mkdir()
    (source / "setup.py").write_text("raise SystemExit('code of a package ran')")
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    subprocess.run(["tar", "-czf", str(wheels / "evil-1.0.tar.gz"), "-C", str(wheels), "source"], check=True)
    node.run(a_job(plane, "r1", "evil==1.0"))
    assert plane.end_of("r1").cause is Cause.ENVIRONMENT_FAILED
    assert "code of a package ran" not in plane.logs["r1"]


@pytest.mark.parametrize("wants", ["--index-url https://evil.example/simple\ntiny", "evil @ file:///etc", "-e ."])
def test_requirements_that_say_where_from_are_refused_on_the_node_too(
    node: Node, plane: ControlPlane, wants: str
) -> None:
    node.run(a_job(plane, "r1", wants))
    end = plane.end_of("r1")
    assert (end.cause, "requirements.txt line 1" in end.message) == (Cause.ENVIRONMENT_FAILED, True)


def test_a_node_without_a_source_of_packages_says_so(make_node: Callable[..., Node], plane: ControlPlane) -> None:
    make_node().run(a_job(plane, "r1", "tiny"))
    assert "TRELLIS_PACKAGE_INDEX" in plane.end_of("r1").message


def test_the_build_is_no_way_to_reach_the_nodes_files(node: Node, plane: ControlPlane) -> None:
    code = plane.give_code("r1", {"requirements.txt": b"tiny"})
    for path in ("../../../node.json", "/etc/passwd", "missing.txt"):
        node.run(a_spec(f"r-{abs(hash(path))}", "/bin/true", code=Code(code.digest, 1, 1, path)))
    plane.manifests |= dict.fromkeys(plane.wanted, plane.manifests["r1"])
    plane.code |= dict.fromkeys(plane.wanted, plane.code["r1"])
    for name in list(plane.wanted):
        assert plane.end_of(name).cause in (Cause.ENVIRONMENT_FAILED, Cause.START_FAILED)
        assert "token" not in plane.logs[name]


def test_a_job_can_be_cancelled_while_another_builds_its_environment(node: Node, plane: ControlPlane) -> None:
    lock = _held_by_another(node, plane, "tiny")
    node.run(a_job(plane, "r1", "tiny"))
    wait_until(lambda: plane.reports["r1"])
    plane.wish_end("r1", StopReason.CANCELLED)
    assert plane.end_of("r1").state is ReplicaState.CANCELLED
    os.close(lock)
    node.run(a_job(plane, "r2", "tiny"))
    assert plane.end_of("r2").exit_code == 0


def _held_by_another(node: Node, plane: ControlPlane, wants: str) -> int:
    """The lock of an environment, once it is known where it lies; the environment itself is gone."""
    node.run(a_job(plane, "first", wants))
    assert plane.end_of("first").exit_code == 0, plane.logs["first"]
    wait_until(lambda: not list(node.home.find_replicas()))
    ((_, _, found),) = environments._kept(node.home)
    environments.trim(node.home, 0)
    fd = found.lock(2)
    assert fd is not None
    return fd


def test_what_a_builder_that_was_killed_left_is_built_anew(node: Node, plane: ControlPlane) -> None:
    lock = _held_by_another(node, plane, "tiny")
    node.run(a_job(plane, "r1", "tiny"))
    wait_until(lambda: plane.reports["r1"])
    (folder,) = [path.with_suffix("") for path in node.home.environments.glob("*/*.lock")]
    folder.mkdir()
    (folder / "half").write_text("a build that was killed")
    os.close(lock)
    assert plane.end_of("r1").exit_code == 0, plane.logs["r1"]
    assert not (folder / "half").exists()


def test_environments_are_bounded_and_one_in_use_is_never_removed(node: Node, plane: ControlPlane) -> None:
    hold = "import tiny, time; print('up', flush=True); time.sleep(600)"
    node.run(a_job(plane, "r1", "tiny", "python", "-c", hold))
    wait_until(lambda: plane.lines("r1") == ["up"])
    node.run(a_job(plane, "r2", "tiny==1.0"))
    assert plane.end_of("r2").exit_code == 0
    wait_until(lambda: len(list(node.home.find_replicas())) == 1)
    environments.trim(node.home, 0)
    assert len(list(environments._kept(node.home))) == 1
    plane.wish_end("r1", StopReason.CANCELLED, 0)
    plane.end_of("r1")
    wait_until(lambda: not list(node.home.find_replicas()))
    environments.trim(node.home, 0)
    assert list(environments._kept(node.home)) == []


def test_packages_of_one_project_are_not_anothers(node: Node, plane: ControlPlane) -> None:
    for name, project in (("r1", "one"), ("r2", "two")):
        node.run(a_job(plane, name, "tiny", project_id=project))
        assert plane.end_of(name).exit_code == 0
        assert "building" in said(plane, name)


def test_packages_come_from_an_index_for_jobs_that_have_no_network_themselves(
    make_node: Callable[..., Node], plane: ControlPlane, wheels: Path
) -> None:
    with served(wheels) as address:
        make_node(package_index=f"{address}/simple/").run(a_job(plane, "r1", "tiny"))
        assert plane.end_of("r1").exit_code == 0, plane.logs["r1"]
    assert plane.lines("r1") == ["1 True"]


def test_a_build_that_hangs_can_be_cancelled_and_leaves_nothing(
    make_node: Callable[..., Node], plane: ControlPlane
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        node = make_node(package_index=f"http://127.0.0.1:{deaf.getsockname()[1]}/simple/")
        node.run(a_job(plane, "r1", "tiny"))
        asker, _ = deaf.accept()  # uv is at work
        plane.wish_end("r1", StopReason.CANCELLED)
        assert plane.end_of("r1").state is ReplicaState.CANCELLED
        asker.close()
    assert list(environments._kept(node.home)) == []


@contextmanager
def served(wheels: Path) -> Iterator[str]:
    """An index of packages over loopback, as PEP 503 has it: a folder a package, listed as links."""
    folder = wheels / "simple/tiny"
    folder.mkdir(parents=True)
    for wheel in wheels.glob("*.whl"):
        wheel.rename(folder / wheel.name)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(wheels)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


def test_a_node_that_stops_while_it_builds_says_so(node: Node, plane: ControlPlane) -> None:
    lock = _held_by_another(node, plane, "tiny")
    node.run(a_job(plane, "r1", "tiny"))
    wait_until(lambda: plane.reports["r1"])
    (replica,) = node.home.find_replicas()
    os.kill(int(replica.lock.read_text()), signal.SIGTERM)
    assert plane.end_of("r1").cause is Cause.NODE_STOPPED
    os.close(lock)
