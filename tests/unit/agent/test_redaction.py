"""Secrets in every dress they are printed in."""

import base64
import binascii
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.redaction import Redactor, secrets_in

SECRET = 'p@ss/w0rd+"é%\\x'


@pytest.mark.parametrize(
    "written",
    [
        SECRET, json.dumps({"key": SECRET}), json.dumps({"key": SECRET}, ensure_ascii=False), quote(SECRET, safe=""), quote(SECRET),
        quote(SECRET, safe="").lower(), repr({"key": SECRET}), SECRET.encode().hex(), binascii.hexlify(SECRET.encode()).decode().upper(),
    ],
)  # fmt: skip
def test_a_secret_is_known_in_the_forms_that_text_takes(written: str) -> None:
    shown = Redactor([SECRET])(f"before {written} after".encode())
    assert b"***" in shown
    assert b"w0rd" not in shown
    assert shown.startswith(b"before ")
    assert shown.endswith(b" after")


@given(
    before=st.binary(max_size=7),
    after=st.binary(max_size=7),
    secret=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=12, max_size=40),
)
def test_a_secret_is_known_wherever_it_lies_in_base64(before: bytes, after: bytes, secret: str) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(before + secret.encode() + after)
        shown = Redactor([secret])(text)
        assert b"***" in shown
        left = shown.replace(b"***", b"")
        assert len(left) <= len(text) - len(secret), "nothing but the edges is left"


def test_of_a_secret_of_several_lines_each_is_one() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END KEY-----\n"
    shown = Redactor([key])(f"read\n{key}".encode())
    assert shown == b"read\n***\n***\n***\n***\n"


def test_short_values_and_empty_ones_are_let_through() -> None:
    assert Redactor(["", "true", "1234567"])(b"true 1234567") == b"true 1234567"
    assert Redactor([""]).longest == 0


def test_of_secrets_within_each_other_the_longer_goes_whole() -> None:
    assert Redactor(["password", "password-and-more"])(b"x password-and-more y") == b"x *** y"


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [("HF_TOKEN", True), ("AWS_SECRET_ACCESS_KEY", True), ("WANDB_API_KEY", True), ("db_password", True), ("SECRET", True),
     ("GOOGLE_CREDENTIALS", True), ("PWD", False), ("SORT_KEY", False), ("MAX_TOKENS", False), ("TOKENIZER", False), ("KEYBOARD", False)],
)  # fmt: skip
def test_names_say_what_is_secret(name: str, *, is_secret: bool) -> None:
    assert (list(secrets_in({name: "the value"})) == ["the value"]) is is_secret


def test_the_password_within_an_address_is_secret_whatever_it_is_called() -> None:
    found = secrets_in(
        {"DATABASE_URL": "postgresql://me:hunter2hunter2@db/x", "URL": "http://plain/a@b", "BAD": "http://[::@x"}
    )
    assert list(found) == ["hunter2hunter2"]
