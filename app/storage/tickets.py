"""Tickets: what one cluster says to another of a checkpoint that may be gone on from there.

A ticket is text that may travel in a mail: a statement, and the issuing cluster's signature over it. It holds no
secret and no way in: who has one needs a cluster whose operator trusts the issuer and can reach its store.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from trellis.errors import Field, Invalid
from trellis.stores.base import segments
from trellis.wire import pack, unpack

FORM = "trellis-ticket-1"
LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Ticket:
    """That the checkpoint whose signed manifest is at `key` of the issuer's store may be read until `until`.

    `cluster` is the issuer's public key in hex. `store` is the issuer's own word for where its store is: for people,
    never for opening anything.
    """

    id: str
    cluster: str
    store: str
    key: str
    checkpoint_id: str
    project_id: str
    issued_at: str
    until: str

    @property
    def ends_at(self) -> datetime:
        """The moment from which it counts no more."""
        return datetime.fromisoformat(self.until)


def issue(ticket: Ticket, key: Ed25519PrivateKey) -> str:
    """As text: the form, the statement and the signature, with dots between them."""
    statement = _encode(json.dumps(pack(ticket), separators=(",", ":")).encode())
    return f"{FORM}.{statement}.{_encode(key.sign(_signed(statement)))}"


def read(text: str) -> Ticket:
    """What `issue` wrote, if the cluster that it names signed it; whether that one is trusted is another question.

    Raises: Invalid for what is no ticket, was altered, or was cut off on its way.
    """
    form, _, rest = text.strip().partition(".")
    statement, _, signature = rest.partition(".")
    if len(text) > LONGEST or form != FORM or not signature:
        raise _fault("is no ticket, or was cut off: it begins with trellis-ticket-1 and is one word")
    try:
        ticket = unpack(Ticket, json.loads(_decode(statement)))
        _check(ticket)
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(ticket.cluster)).verify(_decode(signature), _signed(statement))
    except (ValueError, RecursionError, InvalidSignature) as error:
        raise _fault("was altered, or was cut off: have it sent again as it was") from error
    return ticket


def _check(ticket: Ticket) -> None:
    """Raises ValueError for what no cluster would say."""
    segments(ticket.key)
    for word in (ticket.id, ticket.checkpoint_id, ticket.project_id):
        UUID(word)
    if not ticket.key.startswith("manifests/") or ticket.ends_at.tzinfo is None:
        raise ValueError("a ticket names a manifest, and a moment with its zone")


def _signed(statement: str) -> bytes:
    # With the form before it, so that no signature over anything else can be taken for one over a ticket.
    return f"{FORM}\n{statement}".encode()


def _encode(block: bytes) -> str:
    return base64.urlsafe_b64encode(block).decode().rstrip("=")


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def _fault(message: str) -> Invalid:
    return Invalid(Field("/ticket", message))
