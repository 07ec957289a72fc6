"""Who stays signed in to Flower."""

import asyncio
import importlib
import socket
from types import ModuleType

import pytest


@pytest.fixture
def flower(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, whose import sets Flower's options."""
    monkeypatch.setenv("TRELLIS_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("TRELLIS_SECRET_KEY", "k" * 32)
    return importlib.import_module("tasks.flower")


class Book:
    """Accounts as a list of those who still are administrators; raises what it is told to."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault

    async def renew(self, refresh_token: str) -> str:
        """The next token."""
        if self.fault:
            raise self.fault
        return f"{refresh_token}+"


def admitted_after_renewal(flower: ModuleType, book: Book) -> bool:
    """Whether somebody who signed in is still let in once the API was asked again."""

    async def act() -> bool:
        sessions = flower.Sessions(book)
        name = sessions.open("ada", "t")
        assert name in flower.options.auth.split("|")
        await sessions._renew(name)
        return name in flower.options.auth.split("|")

    return asyncio.run(act())


def test_an_administrator_stays(flower: ModuleType) -> None:
    assert admitted_after_renewal(flower, Book())


def test_who_is_one_no_longer_is_out(flower: ModuleType) -> None:
    assert not admitted_after_renewal(flower, Book(flower.Refused("not any more")))


def test_a_silent_api_throws_nobody_out(flower: ModuleType) -> None:
    assert admitted_after_renewal(flower, Book(flower.ApiSilent()))


def test_an_api_that_does_not_answer_is_told_from_one_that_refuses(flower: ModuleType) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        accounts = flower.Accounts(f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(flower.ApiSilent):
            asyncio.run(accounts.renew("t"))


def test_the_number_of_sessions_is_bounded(flower: ModuleType) -> None:
    async def act() -> None:
        sessions = flower.Sessions(Book())
        for _ in range(flower.MOST_SESSIONS + 5):
            sessions.open("ada", "t")

    asyncio.run(act())
    assert len(flower.options.auth.split("|")) == flower.MOST_SESSIONS + 1
