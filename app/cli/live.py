"""A log, or drawn work, given to a platform that runs: submitted when it was, `speed` times as fast."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from scheduler.simulator.workload import Work
from scheduler.snapshot import WHOLE
from trellis import Client
from trellis.answers import Kind
from trellis.submission import JobBody

TICK_S = 0.5
"""What comes within so long is submitted together."""
MOST_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Live:
    """Work to submit; its nodes are to play at the same `speed`."""

    works: Sequence[Work]
    speed: float

    def run(
        self, client: Client, *, progress: Callable[[int], None], sleep: Callable[[float], None]
    ) -> dict[str, float]:
        """Submit all of it, each at its time; figures of how far that kept pace. Raises what submitting raises."""
        largest = max(client.nodes.kinds(), key=lambda kind: (kind.nodes_ready > 0, kind.cpu_milli))
        began, latest_s, count = time.monotonic(), 0.0, 0
        for due_s, bodies in self.batches(largest):
            early_s = due_s - (time.monotonic() - began)
            if early_s > 0:
                sleep(early_s)
            latest_s = max(latest_s, -early_s)
            for start in range(0, len(bodies), MOST_AT_ONCE):
                client.jobs.submit_batch(bodies[start : start + MOST_AT_ONCE])
            count += len(bodies)
            progress(count)
        return {"jobs": count, "submitted_in_s": round(time.monotonic() - began, 1), "latest_s": round(latest_s, 2)}

    def batches(self, node: Kind) -> Iterator[tuple[float, list[JobBody]]]:
        """When to submit what, in real seconds from the first; jobs are cut to nodes of that kind."""
        first = self.works[0].submitted_at if self.works else 0.0

        def tick(work: Work) -> int:
            return int((work.submitted_at - first) / self.speed / TICK_S)

        for number, works in groupby(self.works, key=tick):
            yield number * TICK_S, [self._body(work, node) for work in works]

    def _body(self, work: Work, node: Kind) -> JobBody:
        role = work.job_class.roles[0]
        # A log knows of processors and not of nodes: what is more than a node has is spread over several.
        parts = max(role.least, -(-role.request.cpu_milli // node.cpu_milli))
        cpu_milli = -(-role.request.cpu_milli * role.least // parts)
        body: JobBody = {
            "command": ["true"],
            "name": f"replay-{work.id}",
            "environment": {"SIMULATE_RUN_TIME": str(math.ceil(work.run_s))},
            "resources": {"cpus": cpu_milli / WHOLE, "gpus": role.request.gpu_milli / WHOLE},
            "replicas": parts,
        }
        if role.request.memory_bytes:
            body["resources"]["memory"] = str(role.request.memory_bytes)
        if work.job_class.time_limit_s is not None:
            # The platform's limits count real seconds: it means the same only at the pace of what it limits.
            body["time_limit"] = max(1, math.ceil(work.job_class.time_limit_s / self.speed))
        return body
