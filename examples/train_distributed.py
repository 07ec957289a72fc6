"""Training by several processes at once, which find each other by what Trellis tells them.

    trellis submit --replicas 4 --network host --checkpoint-every 1m examples/train_distributed.py -- --epochs 300

Each replica has its part of the points; after each pass all of them add up their gradients, over TCP, by way of rank 0.
Rank 0 saves for all. The standard library is all it needs; `train_torch.py` does the same with PyTorch. It may have any
number of replicas, also another one than the attempt before, and run by itself, outside of Trellis.
"""

import argparse
import math
import random
import socket
import struct
import time
from array import array

from trellis import runtime
from trellis.runtime import checkpoint

PATIENCE_S = 60.0


class Others:
    """The other replicas. Everybody sends to rank 0, which adds up in the order of ranks and answers all the same."""

    def __init__(self) -> None:
        self.rank, self.size = runtime.rank(), runtime.world_size()
        self.links: dict[int, socket.socket] = {}
        if self.size == 1:
            return
        if self.rank:
            self.links[0] = connect(runtime.master())
            self.links[0].sendall(struct.pack("!I", self.rank))
            return
        with socket.create_server(runtime.master()) as server:
            server.settimeout(PATIENCE_S)
            while len(self.links) < self.size - 1:
                link, _ = server.accept()
                self.links[struct.unpack("!I", exactly(link, 4))[0]] = link

    def add(self, values: list[float]) -> list[float]:
        """The sum of what all replicas give here, number by number."""
        if self.rank:
            self.links[0].sendall(array("d", values).tobytes())
            return list(array("d", exactly(self.links[0], 8 * len(values))))
        for _, link in sorted(self.links.items()):
            theirs = array("d", exactly(link, 8 * len(values)))
            values = [mine + other for mine, other in zip(values, theirs, strict=True)]
        for link in self.links.values():
            link.sendall(array("d", values).tobytes())
        return values


def connect(to: tuple[str, int]) -> socket.socket:
    """Rank 0 may be a moment later than we are."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return socket.create_connection(to, timeout=PATIENCE_S)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def exactly(link: socket.socket, count: int) -> bytes:
    block = b""
    while len(block) < count:
        piece = link.recv(count - len(block))
        if not piece:
            raise ConnectionError("another replica has ended")
        block += piece
    return block


def points(count: int, seed: int) -> list[tuple[list[float], int]]:
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        point = [chance.gauss(0, 1) for _ in range(8)]
        made.append((point, int(sum(point[:4]) - sum(point[4:]) + chance.gauss(0, 0.5) > 0)))
    return made


def gradient(weights: list[float], part: list[tuple[list[float], int]]) -> list[float]:
    """The sums over our part: of the gradient, and, at the end, of the loss."""
    sums = [0.0] * (len(weights) + 1)
    for point, label in part:
        guess = 1 / (1 + math.exp(-sum(w * x for w, x in zip(weights, point, strict=True))))
        sums[-1] -= math.log(max(guess if label else 1 - guess, 1e-12))
        for number, x in enumerate(point):
            sums[number] += (guess - label) * x
    return sums


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--epochs", type=int, default=300)
    options.add_argument("--every", type=int, default=10, help="save each so many epochs")
    options.add_argument("--pause", type=float, default=0.0, help="seconds to rest after an epoch")
    given = options.parse_args()
    others = Others()
    data = points(400, seed=7)
    found = checkpoint.latest()
    state = found.state() if found else {"weights": [0.0] * 8, "epoch": 0}
    print(f"starting at epoch {state['epoch']} as rank {others.rank} of {others.size}", flush=True)
    loss = 0.0
    while state["epoch"] < given.epochs:
        sums = gradient(state["weights"], data[others.rank :: others.size])
        # Whoever was asked to save tells the others with the sums: all of them know at the same epoch.
        *sums, loss, asked = others.add([*sums, float(checkpoint.requested())])
        state["weights"] = [w - 0.5 * each / len(data) for w, each in zip(state["weights"], sums, strict=True)]
        state["epoch"] += 1
        if others.rank == 0 and (asked or state["epoch"] % given.every == 0):
            checkpoint.save(state, step=state["epoch"], metrics={"loss": loss / len(data)})
        time.sleep(given.pause)
    if others.rank == 0:
        runtime.log_metric("loss", loss / len(data), step=state["epoch"])
        print(f"ended at epoch {state['epoch']} with loss {loss / len(data)!r}", flush=True)


if __name__ == "__main__":
    main()
