"""Secrets are taken out of what a job prints before it is written down, by their value, however they are written."""

import base64
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus, urlsplit

MASK = b"***"
# What is shorter would be found in words that are no secret.
SHORTEST = 8
_MOST_FORMS = 5000
_NAMES = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|DSN|(API|ACCESS|SECRET|PRIVATE|SIGNING|ENCRYPTION|AUTH)_?KEY)$",
    re.IGNORECASE,
)


class Redactor:
    """Puts MASK in the place of values: as they are, and as JSON, percent-encoding, base64 and hex write them."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Values under SHORTEST characters are let through; of those of several lines each line is a secret."""
        forms = {form for secret in secrets for form in _forms(secret)}
        self._forms = sorted(forms, key=len, reverse=True)[:_MOST_FORMS]
        self._pattern = re.compile(b"|".join(map(re.escape, self._forms))) if self._forms else None
        self.longest = max(map(len, self._forms), default=0)

    def __call__(self, text: bytes) -> bytes:
        """The same without the secrets."""
        # Looking for each by itself is many times faster than the expression, and most text holds none.
        if self._pattern is None or not any(form in text for form in self._forms):
            return text
        return self._pattern.sub(MASK, text)


def secrets_in(environment: Mapping[str, str]) -> Iterator[str]:
    """The values that are to be kept out of logs: of variables whose names say so, and passwords within addresses."""
    for name, value in environment.items():
        if _NAMES.search(name):
            yield value
    for text in environment.values():
        if "://" in text and "@" in text:
            yield from _password(text)


def _password(address: str) -> Iterator[str]:
    try:
        password = urlsplit(address).password
    except ValueError:
        return
    if password:
        yield password


def _forms(secret: str) -> Iterator[bytes]:
    lines = secret.splitlines()
    wholes = {secret, secret.strip()} | ({line.strip() for line in lines} if len(lines) > 1 else set())
    for text in wholes:
        if len(text) < SHORTEST:
            continue
        raw = text.encode(errors="surrogateescape")
        yield from (form for form in (raw, *_written(text), *_encoded(raw)) if b"\n" not in form)


def _written(text: str) -> Iterator[bytes]:
    """As text is written inside other text."""
    plain = text.encode(errors="replace").decode()
    for form in (json.dumps(plain)[1:-1], json.dumps(plain, ensure_ascii=False)[1:-1], repr(plain)[1:-1]):
        yield form.encode()
    for form in (quote(plain, safe=""), quote(plain), quote_plus(plain)):
        yield form.encode()
        yield re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), form).encode()


def _encoded(raw: bytes) -> Iterator[bytes]:
    """Hex, and base64 wherever in the encoded bytes the secret begins: of its edges, what no neighbour changes."""
    yield from (raw.hex().encode(), raw.hex().upper().encode())
    for shift in range(3):
        first, last = math.ceil(shift * 8 / 6), (shift + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(shift) + raw)[first:last]
