"""Training with PyTorch by several processes at once: `DistributedDataParallel` over gloo, on CPUs.

    trellis submit --replicas 4 --network host --checkpoint-every 1m examples/train_torch.py -- --epochs 100

`init_process_group` finds the others by RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, which Trellis sets. Rank 0 saves for
all; with the same number of replicas it ends with the same loss, bit for bit, however often it was evicted in between.
"""

import argparse
import time
from typing import Any

import torch
from torch import distributed, nn

from trellis import runtime
from trellis.runtime import checkpoint


def points() -> tuple[torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(7)
    x = torch.randn(512, 16, generator=chance)
    return x, (x[:, :8].sum(1, keepdim=True) > x[:, 8:].sum(1, keepdim=True)).float()


def plain(tensors: dict[str, Any]) -> dict[str, Any]:
    """Tensors as lists: every float of 32 bits is one of 64 too, so nothing is lost."""
    return {name: value.tolist() for name, value in tensors.items()}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--epochs", type=int, default=100)
    options.add_argument("--every", type=int, default=10, help="save each so many epochs")
    options.add_argument("--pause", type=float, default=0.0, help="seconds to rest after an epoch")
    given = options.parse_args()
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank, size = distributed.get_rank(), distributed.get_world_size()
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1))
    found = checkpoint.latest()
    state = found.state() if found else {"epoch": 0, "network": plain(network.state_dict())}
    network.load_state_dict({name: torch.tensor(value) for name, value in state["network"].items()})
    model = nn.parallel.DistributedDataParallel(network)
    descent = torch.optim.SGD(model.parameters(), lr=0.5)
    x, y = (whole[rank::size] for whole in points())
    print(f"starting at epoch {state['epoch']} as rank {rank} of {size}", flush=True)
    total = torch.zeros(2)
    for epoch in range(state["epoch"] + 1, given.epochs + 1):
        descent.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(x), y)
        loss.backward()
        descent.step()
        # Whoever was asked to save tells the others: all of them know at the same epoch.
        total = torch.tensor([loss.item() / size, float(checkpoint.requested())])
        distributed.all_reduce(total)
        if rank == 0 and (total[1] or epoch % given.every == 0):
            saved = {"epoch": epoch, "network": plain(network.state_dict())}
            checkpoint.save(saved, step=epoch, metrics={"loss": total[0].item()})
        time.sleep(given.pause)
    if rank == 0:
        runtime.log_metric("loss", total[0].item(), step=given.epochs)
        print(f"ended at epoch {given.epochs} with loss {total[0].item()!r}", flush=True)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
