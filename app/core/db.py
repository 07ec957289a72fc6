"""The engine: one pool a process."""

from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session, sessionmaker

from app.core.settings import Settings

LIBPQ_OPTIONS = "-c timezone=UTC -c lock_timeout=10s -c idle_in_transaction_session_timeout=60s"


def normal_url(url: str) -> str:
    """The same database by the driver we use: `postgresql://` means psycopg 3 here."""
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def libpq_url(url: str) -> str:
    """The same database for psycopg itself, which takes no driver name."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def make_engine(settings: Settings) -> Engine:
    """An engine whose connections give up on a lock after 10 s rather than hang."""
    return create_engine(
        normal_url(settings.database_url),
        pool_size=settings.database_pool,
        max_overflow=0,
        pool_timeout=5,
        pool_use_lifo=True,  # few connections do most of the work, and have its statements prepared
        connect_args={
            "options": LIBPQ_OPTIONS,
            "connect_timeout": 3,
            "application_name": "trellis",
            # What is asked twice is asked again: to plan a statement costs the server more than to carry it out.
            "prepare_threshold": 1,
        },
    )


def make_sessions(engine: Engine) -> sessionmaker[Session]:
    """Sessions that flush when told to and keep rows readable after the commit."""
    return sessionmaker(engine, autoflush=False, expire_on_commit=False)
