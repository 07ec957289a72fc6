"""Packages of Python that tests make themselves, so that none is fetched from anywhere."""

import hashlib
import zipfile
from pathlib import Path


def a_wheel(folder: Path, name: str = "tiny", version: str = "1.0", module: str = "VALUE = 1", needs: str = "") -> Path:
    """A wheel with one module of that name; `needs` is what it requires."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (
        f"Requires-Dist: {needs}\n" if needs else ""
    )
    files = {
        f"{name}.py": module + "\n",
        f"{about}/METADATA": metadata,
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{about}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    path.chmod(0o644)
    folder.chmod(0o755)
    return path


def hash_of(wheel: Path) -> str:
    """As a requirement says it."""
    return f"--hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
