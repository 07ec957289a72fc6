"""Secrets: distinct by purpose, never stored as they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.crypto import Keyring, hash_password, new_secret, password_matches

RING = Keyring("k" * 32)


@given(st.text(), st.text())
def test_each_purpose_has_a_key_of_its_own(one: str, other: str) -> None:
    assert (RING.key(one) == RING.key(other)) == (one == other)


@given(st.text(), st.text())
def test_a_digest_differs_by_secret_and_by_purpose(one: str, other: str) -> None:
    assert (RING.digest("p", one) == RING.digest("p", other)) == (one == other)
    assert RING.digest("p", one) != RING.digest("q", one)


def test_another_secret_key_gives_other_keys() -> None:
    assert Keyring("j" * 32).key("jwt") != RING.key("jwt")


def test_a_secret_carries_its_prefix_and_256_bits() -> None:
    secrets = {new_secret("trk") for _ in range(100)}
    assert len(secrets) == 100
    assert {(secret.partition("_")[0], len(secret)) for secret in secrets} == {("trk", 47)}


def test_a_password_matches_its_own_hash_alone() -> None:
    stored = hash_password("correct horse battery")
    assert password_matches(stored, "correct horse battery")
    assert not password_matches(stored, "correct horse batterz")
    assert hash_password("correct horse battery") != stored


@pytest.mark.parametrize("stored", [None, "", "no hash at all"])
def test_nothing_matches_where_there_is_no_hash(stored: str | None) -> None:
    assert not password_matches(stored, "anything")
