"""A container engine of the tests' own: Podman, with a folder for all it keeps, a socket, and an image made here."""

import io
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.containers.engine import Engine, EngineGone
from tests.support.agent_api import wait_until
from tests.support.registry import Registry
from tests.support.services import ROOT

IMAGE = "localhost/trellis-test:1"
_APPLETS = (
    "sh",
    "sleep",
    "echo",
    "cat",
    "id",
    "ls",
    "touch",
    "env",
    "kill",
    "dd",
    "true",
    "ln",
    "printf",
    "head",
    "test",
)


@dataclass(frozen=True)
class TestEngine:
    """Where it listens."""

    __test__ = False
    socket: str
    registry: Registry
    environment: dict[str, str]

    def load(self, layer: bytes, name: str) -> str:
        """Make an image of a tar; its name."""
        command = ["podman", "import", "--quiet", "-", name]
        done = subprocess.run(command, env=self.environment, input=layer, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return name

    @property
    def engine(self) -> Engine:
        return Engine(self.socket)

    def names(self) -> list[str]:
        """Every container that there is."""
        listed = self.engine._ask("GET", "/containers/json?all=1")
        return sorted(name.strip("/") for one in listed for name in one["Names"])


def why_not() -> str:
    """What this machine lacks to run containers; empty where nothing is."""
    if os.geteuid() != 0:
        return "containers of tests take root"
    for program in ("podman", "conmon", "runc", "busybox", "catatonit"):
        if shutil.which(program, path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin") is None:
            return f"{program} is not installed"
    return ""


@pytest.fixture(scope="session")
def container_engine() -> Iterator[TestEngine]:
    """One service a session; skipped, with the reason, where there can be none."""
    if lacks := why_not():
        pytest.skip(lacks)
    registry = Registry(_layer())
    registry.start()
    with tempfile.TemporaryDirectory(prefix="trellis-podman-", ignore_cleanup_errors=True) as folder:
        yield from _serve(Path(folder), registry)
    registry.stop()


def _serve(folder: Path, registry: Registry) -> Iterator[TestEngine]:
    _configure(folder)
    (folder / "registries.conf").write_text(f'[[registry]]\nlocation="{registry.place}"\ninsecure=true\n')
    socket = str(folder / "engine.sock")
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(folder), "TMPDIR": str(folder),
        "CONTAINERS_CONF": str(folder / "containers.conf"), "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
    }  # fmt: skip
    # A test session that is killed leaves no engine behind.
    program = [shutil.which("podman") or "podman", "system", "service", "--time=0", f"unix://{socket}"]
    command = [sys.executable, "-m", "tests.support.leash", *program]
    with (folder / "service.log").open("wb") as log:
        service = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        test_engine = TestEngine(socket, registry, environment)
        wait_until(lambda: _answers(test_engine.engine), within_s=30.0)
        test_engine.load(_layer(), IMAGE)
        yield test_engine
        for name in test_engine.names():
            test_engine.engine.remove(name)
    finally:
        service.terminate()
        service.wait()
        subprocess.run(["umount", "-q", str(folder / "graph")], check=False, stderr=subprocess.DEVNULL)


def _configure(folder: Path) -> None:
    """Podman needs to be told of what a container without privileges of its own, such as a CI machine, lacks.

    The runtime is one that takes both versions of control groups at once; limits that are as they are need no right to
    raise them.
    """
    files = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    (folder / "containers.conf").write_text(
        '[engine]\nruntime="runc"\ncgroup_manager="cgroupfs"\nevents_logger="file"\n'
        f'[containers]\ndefault_ulimits=["nofile={files}:{files}","nproc=4096:4096"]\n'
    )
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver="vfs"\ngraphroot="{folder}/graph"\nrunroot="{folder}/run"\n'
    )


def make_python_image(test_engine: TestEngine, *modules: str) -> str:
    """The image with this Python as well: the program, what it links to, and the files of these modules' imports."""
    python = os.path.realpath(sys._base_executable)  # type: ignore[attr-defined]  # that below the environment
    listing = f"import sys, runpy, {', '.join(modules)}\nfor m in list(sys.modules.values()): print(getattr(m, '__file__', '') or '')"
    loaded = subprocess.run(
        [python, "-c", listing], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    linked = subprocess.run(["ldd", python], capture_output=True, text=True, check=True).stdout
    prefix = os.path.realpath(sys.base_prefix)
    files = {name for name in loaded.stdout.split("\n") if name.startswith(f"{prefix}/")}
    files |= {word for line in linked.splitlines() for word in line.split() if word.startswith("/")}
    block = io.BytesIO(_layer())
    with tarfile.open(fileobj=block, mode="a") as tar:
        for name in sorted(files | {python}):
            tar.add(os.path.realpath(name), name)
        link = tarfile.TarInfo("bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, python
        tar.addfile(link)
    return test_engine.load(block.getvalue(), "localhost/trellis-python:1")


def _answers(engine: Engine) -> bool:
    try:
        engine.describe()
    except EngineGone:
        return False
    return True


def _layer() -> bytes:
    """The one program that needs no other file, by its many names."""
    block = io.BytesIO()
    with tarfile.open(fileobj=block, mode="w") as tar:
        tar.add(shutil.which("busybox") or "", "bin/busybox")
        for name in _APPLETS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return block.getvalue()
