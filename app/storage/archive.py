"""A checkpoint as one stream: a tar archive made while it is sent."""

import tarfile
from collections.abc import Iterator

from trellis.stores.base import Store
from trellis.stores.manifests import Manifest
from trellis.stores.packs import read_file

_BLOCK = 512
_RECORD = 20 * _BLOCK


def stream(store: Store, manifest: Manifest, modified_at: float) -> Iterator[bytes]:
    """The archive's bytes, every chunk checked: a damaged one breaks the stream off, which no reader takes for its end."""
    sent = 0
    for file in manifest.files:
        info = tarfile.TarInfo(file.path)
        info.size, info.mtime, info.mode = file.size_bytes, int(modified_at), 0o644
        head = info.tobuf(tarfile.PAX_FORMAT)
        yield head
        yield from read_file(store, file)
        padding = -info.size % _BLOCK
        yield bytes(padding)
        sent += len(head) + info.size + padding
    end = 2 * _BLOCK
    yield bytes(end + -(sent + end) % _RECORD)
