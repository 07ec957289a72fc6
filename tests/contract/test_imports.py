"""What the client may load, proved in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Refuses what the machine happens to have installed, as if it were not there.
_HOOK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])
sys.meta_path.insert(0, Absent())
"""
_EXTRAS = {"typer", "rich", "celery", "kombu", "redis", "flask", "marshmallow", "sqlalchemy", "psycopg", "psutil", "yaml",
           "pynvml", "pydantic", "click", "shellingham"}  # fmt: skip


def run(code: str, absent: set[str]) -> subprocess.CompletedProcess[str]:
    program = f"ABSENT = {absent!r}\n{_HOOK}\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_client_needs_httpx_alone() -> None:
    done = run("from trellis import *; from trellis import Client; Client('http://x.test', 'k'); print('ok')", _EXTRAS)
    assert (done.stdout, done.stderr) == ("ok\n", "")


@pytest.mark.parametrize(
    "module", ["trellis", "trellis.runtime", "trellis.vocabulary", "trellis.errors", "trellis.wire", "trellis.units"]
)
def test_what_code_inside_a_job_imports_needs_the_standard_library_alone(module: str) -> None:
    done = run(f"import {module}; assert 'httpx' not in sys.modules; print('ok')", {*_EXTRAS, "httpx", "httpcore"})
    assert (done.stdout, done.stderr) == ("ok\n", "")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_a_command_line_that_is_not_installed_says_what_to_do(missing: str) -> None:
    done = run("from trellis.cli import main; main()", {missing})
    assert done.returncode == 1
    assert done.stderr == f"trellis: the command line needs {missing}: pip install 'trellis[cli]'\n"


def test_direct_without_celery_says_what_to_do() -> None:
    done = run("import trellis.direct", {"celery"})
    assert "trellis.direct needs Celery: pip install 'trellis[direct]'" in done.stderr


def test_every_name_of_the_public_face_is_there() -> None:
    done = run(
        "import trellis; [getattr(trellis, name) for name in trellis.__all__]; print(len(dir(trellis)) > 9)", set()
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
