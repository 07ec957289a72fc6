"""What is free on one node, kept the plain way: every device and every memory slot by itself."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from scheduler.snapshot import Holding, Node, Request, Slice

PROFILES = {
    "1g.10gb": (1, (0, 1, 2, 3, 4, 5, 6)),
    "1g.10gb+me": (1, (0, 1, 2, 3, 4, 5, 6)),
    "1g.20gb": (2, (0, 2, 4, 6)),
    "2g.20gb": (2, (0, 2, 4)),
    "3g.40gb": (4, (0, 4)),
    "4g.40gb": (4, (0,)),
    "7g.80gb": (8, (0,)),
}
"""Memory slots of a slice, and where it may begin, on a device of 80 GB (NVIDIA, Multi-Instance GPU User Guide)."""

MEDIA = frozenset(("1g.10gb+me", "7g.80gb"))
"""Those that hold the device's one set of media engines."""


class Floor:
    """One node; what is taken must be free, and all that is wrong with a holding is said in words."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.cpu_milli = node.cpu_milli_free
        self.memory_bytes = node.memory_bytes_free
        self.gpus = list(node.gpu_milli_free)
        self.cut: dict[int, list[Slice]] = {device: [] for device in node.partitioned}

    def left(self, node: Node) -> Node:
        """Return the node with what is free here."""
        return replace(
            node, cpu_milli_free=self.cpu_milli, memory_bytes_free=self.memory_bytes, gpu_milli_free=tuple(self.gpus)
        )

    def lay(self, pieces: tuple[Slice, ...]) -> None:
        """Note slices of what runs already: the free amounts do not say them."""
        for piece in pieces:
            self.cut.setdefault(piece.device, []).append(piece)

    def take(self, holding: Holding) -> None:
        """Hold it, be it free or not."""
        self._move(holding, -1)
        self.lay(holding.slices)

    def give(self, holding: Holding) -> None:
        """Take back a `take`."""
        self._move(holding, 1)
        for piece in holding.slices:
            self.cut[piece.device].remove(piece)

    def faults(self) -> Iterator[str]:
        """Yield what is held beyond what there is."""
        name = self.node.name
        if self.cpu_milli < 0 or self.memory_bytes < 0 or min(self.gpus, default=0) < 0:
            yield f"{name} has {self.cpu_milli} milli-CPU, {self.memory_bytes} bytes, {self.gpus} milli-GPU left"
        for device, pieces in self.cut.items():
            if device not in self.node.partitioned:
                yield f"device {device} of {name} is not partitioned: {pieces}"
            slots = [slot for piece in pieces for slot in _slots(piece)]
            if len(set(slots)) < len(slots) or sum(piece.profile in MEDIA for piece in pieces) > 1:
                yield f"slices of device {device} of {name} overlap: {pieces}"
            if any(piece.start not in PROFILES[piece.profile][1] for piece in pieces):
                yield f"a slice of device {device} of {name} may not begin there: {pieces}"

    def places(self, request: Request, role: int = 0) -> Iterator[Holding]:
        """Yield every way in which one replica could be held here, but for which whole devices they are."""
        if self.cpu_milli < request.cpu_milli or self.memory_bytes < request.memory_bytes:
            return
        needs_device = request.gpu_milli or request.mig_profile
        if needs_device and request.gpu_models and self.node.gpu_model not in request.gpu_models:
            return
        plain = Holding(self.node.id, request.cpu_milli, request.memory_bytes, role=role)
        if request.mig_profile:
            for piece in self._pieces(request.mig_profile):
                yield replace(plain, slices=(piece,))
        elif request.gpu_milli >= 1000:
            unused = [device for device, milli in enumerate(self.gpus) if milli >= 1000]
            count = request.gpu_milli // 1000
            if len(unused) >= count:
                yield replace(plain, gpus=tuple((device, 1000) for device in unused[:count]))
        elif request.gpu_milli:
            for device, milli in enumerate(self.gpus):
                if milli >= request.gpu_milli:
                    yield replace(plain, gpus=((device, request.gpu_milli),))
        else:
            yield plain

    def seat(self, random: Random, request: Request, role: int) -> Holding | None:
        """Hold one replica at a place by lot; None where there is none."""
        found = list(self.places(request, role))
        if not found:
            return None
        holding = random.choice(found)
        self.take(holding)
        return holding

    def _pieces(self, profile: str) -> Iterator[Slice]:
        if self.node.gpu_model not in ("H100", "A100"):
            return
        for device in self.node.partitioned:
            taken = {slot for piece in self.cut[device] for slot in _slots(piece)}
            has_media = any(piece.profile in MEDIA for piece in self.cut[device])
            for start in PROFILES[profile][1]:
                piece = Slice(device, profile, start)
                if not taken & set(_slots(piece)) and not (has_media and profile in MEDIA):
                    yield piece

    def _move(self, holding: Holding, sign: int) -> None:
        self.cpu_milli += sign * holding.cpu_milli
        self.memory_bytes += sign * holding.memory_bytes
        for device, milli in holding.gpus:
            self.gpus[device] += sign * milli


def _slots(piece: Slice) -> range:
    return range(piece.start, piece.start + PROFILES[piece.profile][0])
