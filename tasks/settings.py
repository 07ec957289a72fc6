"""How Celery processes that are no control worker are wired."""

from dataclasses import dataclass

from trellis.settings import BrokerSettings


@dataclass(frozen=True, slots=True)
class FlowerSettings(BrokerSettings):
    """What Flower needs beside the broker: a key to sign its cookies with, and the API that knows the accounts.

    `public_url` is where this process reaches the API.
    """

    secret_key: str = ""
    public_url: str = "http://127.0.0.1:8420"
