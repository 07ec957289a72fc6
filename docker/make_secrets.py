"""Writes the passwords and keys that compose.yaml asks for: `python3 docker/make_secrets.py`. Keeps what is there.

Standard library only: it runs on the host, which may have nothing of Trellis installed.
"""

import secrets
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "secrets"
REDIS = """\
requirepass {password}
dir /data
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
"""
RABBITMQ = """\
default_user = trellis
default_pass = {password}
"""


def main(folder: Path = FOLDER) -> None:
    """Make each file that is missing."""
    # The files are read by other users inside the containers; on the host this folder keeps everybody else out.
    folder.mkdir(mode=0o700, exist_ok=True)
    database, broker = (
        _keep(folder / name, secrets.token_hex(32)) for name in ("database_password", "broker_password")
    )
    _keep(folder / "secret_key", secrets.token_hex(32))
    _keep(folder / "database_url", f"postgresql+psycopg://trellis:{database}@postgres:5432/trellis")
    _keep(folder / "broker_url", f"redis://:{broker}@redis:6379/0")
    _keep(folder / "redis_conf", REDIS.format(password=broker))
    _keep(folder / "rabbitmq_url", f"amqp://trellis:{broker}@rabbitmq:5672//")
    _keep(folder / "rabbitmq_conf", RABBITMQ.format(password=broker))


def _keep(path: Path, text: str) -> str:
    if not path.exists():
        path.write_text(text)
        path.chmod(0o644)
    return path.read_text()


if __name__ == "__main__":
    main()
