"""Packs of which little is still needed: what is, the next save stores again, so that they can go.

Where a state changes a little all over, every pack loses some chunks with each save and would stay for its last one.
Nothing is rewritten in the background, and nothing that is stored is touched: a save that finds a pack worn counts
its chunks as new. When the checkpoints before it have gone, nobody needs the pack any more, and the sweep takes it.
"""

from trellis.stores.base import Store
from trellis.stores.manifests import CHUNK_AT_MOST, Manifest
from trellis.stores.packs import PACK_BYTES

# A byte is stored again when 2.3 others of its pack are needed no more: at the most that is 0.43 for one that is new.
WORN = 0.3
# Of all that is saved, at most so much is stored again at once: where all packs wear alike it is spread over saves.
_SHARE = 0.05


def worn_packs(store: Store, base: Manifest, sizes: dict[str, int]) -> frozenset[str]:
    """Those that the next save after `base` is to do without, the emptiest first.

    `sizes` are those of packs as far as they are known; what is asked of the store is added. Raises OSError.
    """
    needed: dict[str, int] = {}
    for (pack, _), stored in {(chunk.pack, chunk.offset): chunk.stored for chunk in base.chunks}.items():
        needed[pack] = needed.get(pack, 0) + stored
    room = max(PACK_BYTES, int(base.size_bytes * _SHARE))
    worn = set()
    for pack, stored in sorted(needed.items(), key=lambda item: item[1]):
        if stored >= WORN * (PACK_BYTES + CHUNK_AT_MOST) or stored > room:
            break  # no pack is so large that this is little of it; or it is enough for once
        if stored < WORN * _size(store, pack, sizes):
            worn.add(pack)
            room -= stored
    return frozenset(worn)


def _size(store: Store, pack: str, sizes: dict[str, int]) -> int:
    if pack not in sizes:
        sizes[pack] = store.head(pack) or 0
    return sizes[pack]
