import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The set-up script over a folder of its own, with steps that only write down that they ran."""
    spec = importlib.util.spec_from_file_location("install", ROOT / "requirements" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ran = tmp_path / "ran"
    for name in ("dev.txt", "uv.txt", "pyproject.toml"):
        (tmp_path / name).write_text(f"{name}==1 \\\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "LOCK", tmp_path / "dev.txt")
    monkeypatch.setattr(module, "UV_LOCK", tmp_path / "uv.txt")
    monkeypatch.setattr(module, "PYTHON", tmp_path / "pyproject.toml")
    monkeypatch.setattr(module, "STAMP", tmp_path / "stamp")
    for step in ("_make_venv", "_install_uv", "_install_packages", "_install_project"):
        monkeypatch.setattr(module, step, lambda: ran.write_text("x" + (ran.read_text() if ran.exists() else "")))
    return module


def test_set_up_runs_once_and_again_when_a_lock_file_changed(install: ModuleType, tmp_path: Path) -> None:
    install.main()
    install.main()
    assert (tmp_path / "ran").read_text() == "xxxx"
    (tmp_path / "dev.txt").write_text("other==2 \\\n")
    install.main()
    assert (tmp_path / "ran").read_text() == "xxxxxxxx"


def test_a_set_up_that_was_interrupted_is_done_again(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    install.main()
    install.LOCK.write_text("other==2 \\\n")
    monkeypatch.setattr(install, "_install_packages", interrupted)
    with pytest.raises(SystemExit, match="make setup"):
        install._guarded(install.main)
    assert not install.STAMP.exists()


def test_uv_hears_of_the_indexes_that_pip_was_told_of(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ":env:.index-url='https://later.example/simple'\nglobal.index-url='https://first.example/simple'\nglobal.extra-index-url='https://one.example https://two.example'\nglobal.timeout='60'"
    answer = subprocess.CompletedProcess([], 0, listed, "")
    monkeypatch.setattr(install.subprocess, "run", lambda *_, **__: answer)
    assert install._indexes() == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_DEFAULT_INDEX": "https://later.example/simple",
        "UV_INDEX": "https://one.example https://two.example",
    }


def test_a_step_that_fails_is_a_sentence_with_the_end_of_what_it_said(install: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"(?s)no room.*set-up stopped at `sh -c.*Buy a disk"):
        install._run(["sh", "-c", "echo no room; exit 1"], "Buy a disk.")
