"""Contents in one body."""

import io

import pytest

from tests.support.code import digest_of, parcels
from trellis.bundles.parcels import BadParcel, reader, unwrap, wrap


@pytest.mark.parametrize("cut", [1, 7, 40, 1 << 20])
def test_contents_come_out_as_they_went_in_however_they_were_cut(cut: int) -> None:
    contents = [b"", b"a", b"b" * 100_000, b"last"]
    body = parcels(*contents)
    parts = (body[i : i + cut] for i in range(0, len(body), cut))
    assert [(p.digest, b"".join(p.pieces)) for p in unwrap(reader(parts))] == [(digest_of(c), c) for c in contents]


def test_a_parcel_that_nobody_reads_is_passed_over() -> None:
    assert [p.digest for p in unwrap(io.BytesIO(parcels(b"one", b"two")).read)] == [
        digest_of(b"one"),
        digest_of(b"two"),
    ]


@pytest.mark.parametrize("lost", [1, 3, 4, 20, 42])
def test_a_body_that_ends_too_soon_is_noticed(lost: int) -> None:
    body = parcels(b"one", b"two")[:-lost]
    with pytest.raises(BadParcel, match="ends within"):
        list(unwrap(io.BytesIO(body).read))


@pytest.mark.parametrize("content", [b"", b"other", b"x" * (2 << 20)])
def test_a_content_that_is_not_what_its_digest_says_is_noticed_before_its_last_piece_is_out(content: bytes) -> None:
    body = b"".join(wrap(digest_of(b"this"), len(content), [content]))
    out: list[bytes] = []
    parcel = next(unwrap(io.BytesIO(body).read))
    with pytest.raises(BadParcel):
        out.extend(parcel.pieces)
    assert len(b"".join(out)) < max(1, len(content))


def test_a_length_that_is_a_lie_takes_no_memory() -> None:
    body = bytes.fromhex(digest_of(b"x")) + (2**63).to_bytes(8, "big") + b"x"
    with pytest.raises(BadParcel, match="ends within a parcel"):
        list(unwrap(io.BytesIO(body).read))
