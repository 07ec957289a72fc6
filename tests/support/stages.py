"""A host of simulated nodes in this process, against a control plane in small."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.link import Link
from agent.simulation.host import Host
from agent.simulation.settings import HostSettings
from tests.support.agent_api import JOIN_TOKEN, ControlPlane
from trellis.simulation import Behaviour, HostPlan, SimulatedNodes, Simulation
from trellis.wire import ReplicaSpec, pack


@dataclass
class SimulatedNode:
    """The only node of a host, which can be stopped and started again on the same home."""

    plane: ControlPlane
    path: Path
    simulation: Simulation

    def start(self) -> "SimulatedNode":
        self.path.mkdir(exist_ok=True)
        plan = self.path / "plan.json"
        plan.write_text(json.dumps(pack(a_plan(["a-node"], self.simulation))))
        self.host = Host(HostSettings(self.plane.url, self.path, plan, JOIN_TOKEN), Link(self.plane.url))
        self.host.join()
        self.host.start()
        return self

    def stop(self) -> None:
        self.host.stop()

    def run(self, *specs: ReplicaSpec) -> None:
        self.host.request_launch("node.node-1", self.plane.want(*specs))


def a_plan(names: Sequence[str], simulation: Simulation | None = None) -> HostPlan:
    """Nodes of eight GPUs whose jobs last a minute."""
    profile = "gpu_type=H100,gpus=8,cpu_cores=96,memory_gb=2048"
    return HostPlan((SimulatedNodes(tuple(names), profile),), simulation or Simulation(jobs=(Behaviour(run_s=60),)))
