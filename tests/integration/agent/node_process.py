"""A node in a process of its own, so that a test can kill it.

python -m tests.integration.agent.node_process URL HOME LEVEL
"""

import sys
import threading
from pathlib import Path

from agent.daemon import Daemon
from agent.link import Link
from agent.settings import NodeSettings
from tests.support.agent_api import JOIN_TOKEN


def main(url: str, home: str, level: str) -> None:
    daemon = Daemon(NodeSettings(url, JOIN_TOKEN, "a-node", Path(home), isolation=level), Link(url))
    daemon.start()
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
