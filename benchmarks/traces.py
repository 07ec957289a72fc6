"""Where public traces lie, and what to say where they do not: nothing of them is kept here."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.lines import Printer, say

LOGS = ("KTH-SP2-1996-2.1-cln.swf.gz", "NASA-iPSC-1993-3.1-cln.swf.gz", "SDSC-BLUE-2000-4.2-cln.swf.gz")
SOURCES = {
    "swf": f"logs of the Parallel Workloads Archive, https://www.cs.huji.ac.il/labs/parallel/workload/: {', '.join(LOGS)}",
    "openb": "nodes and pods of https://github.com/alibaba/clusterdata, cluster-trace-gpu-v2023/csv: "
    "openb_node_list_gpu_node.csv, openb_pod_list_*.csv",
}


@dataclass(frozen=True, slots=True)
class Traces:
    """A folder of traces: `swf/`, `openb/`, and `reference/` with the figures of others; None: there is none."""

    folder: Path | None

    def part(self, section: str, kind: str) -> Path | None:
        """One kind of them; where it is missing, a line says that `section` is skipped, and prose where to get it."""
        found = self.folder / kind if self.folder else None
        if found is not None and found.is_dir():
            return found
        say(f"{section} needs the folder {kind}/ in the one that TRACES=DIR names: {SOURCES[kind]}")
        Printer().line(f"{section}.skipped", None, "", missing=f"{kind}/")
        return None
