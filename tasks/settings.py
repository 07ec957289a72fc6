"""How Celery processes that are no control worker are wired."""

from dataclasses import dataclass

from trellis.settings import BrokerSettings


@dataclass(frozen=True, slots=True)
class FlowerSettings(BrokerSettings):
    """What Flower needs beside the broker.

    secret_key: that of the API; signs the cookies of those who are signed in.
    public_url: where this process reaches the API, which knows the accounts.
    """

    secret_key: str
    public_url: str = "http://127.0.0.1:8420"
