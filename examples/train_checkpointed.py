"""Training that survives being evicted, killed or moved: it goes on from its last checkpoint, with the same result.

    trellis submit --checkpoint-every 1m examples/train_checkpointed.py -- --epochs 300

A logistic regression by gradient descent on points that follow from a seed; the standard library is all it needs. Run by
itself, outside of Trellis, it trains from the start to the end.
"""

import argparse
import hashlib
import json
import math
import random
import time
from typing import Any

from trellis import runtime
from trellis.runtime import checkpoint


def points(count: int, seed: int) -> list[tuple[list[float], int]]:
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        point = [chance.gauss(0, 1) for _ in range(8)]
        made.append((point, int(sum(point[:4]) - sum(point[4:]) + chance.gauss(0, 0.5) > 0)))
    return made


def train_epoch(state: dict[str, Any], data: list[tuple[list[float], int]], rate: float) -> float:
    """One pass in an order of its own; the generator's state is part of what is saved, so it goes on as if never stopped."""
    chance = random.Random()
    chance.setstate(state["chance"])
    order = list(range(len(data)))
    chance.shuffle(order)
    weights, loss = list(state["weights"]), 0.0
    for number in order:
        point, label = data[number]
        guess = 1 / (1 + math.exp(-sum(w * x for w, x in zip(weights, point, strict=True))))
        loss -= math.log(max(guess if label else 1 - guess, 1e-12)) / len(data)
        weights = [w + rate * (label - guess) * x for w, x in zip(weights, point, strict=True)]
    state |= {"weights": weights, "chance": chance.getstate(), "epoch": state["epoch"] + 1}
    return loss


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--epochs", type=int, default=300)
    options.add_argument("--every", type=int, default=10, help="save each so many epochs")
    options.add_argument("--pause", type=float, default=0.0, help="seconds to rest after an epoch")
    given = options.parse_args()
    data = points(400, seed=7)
    found = checkpoint.latest()
    state = found.state() if found else {"weights": [0.0] * 8, "epoch": 0, "chance": random.Random(1).getstate()}
    print(f"starting at epoch {state['epoch']}", flush=True)
    loss = 0.0
    while state["epoch"] < given.epochs:
        loss = train_epoch(state, data, rate=0.05)
        runtime.log_metric("loss", loss, step=state["epoch"])
        if checkpoint.requested() or state["epoch"] % given.every == 0:
            checkpoint.save(state, step=state["epoch"], metrics={"loss": loss})
        time.sleep(given.pause)
    digest = hashlib.sha256(json.dumps(state["weights"]).encode()).hexdigest()[:16]
    print(f"ended at epoch {state['epoch']} with weights {digest}", flush=True)


if __name__ == "__main__":
    main()
