"""A host of simulated nodes, in the foreground, until it is told to stop: `python -m tasks.host_command`.

Wired by its environment alone (`agent.simulation.settings`); `trellis up --simulate` starts it.
"""

import logging
import os
import sys
import time

from agent.link import Link
from agent.simulation.host import Host
from agent.simulation.settings import HostSettings
from tasks.host import make_worker_app
from trellis.errors import Unavailable
from trellis.settings import SettingsError, load

log = logging.getLogger(__name__)
RETRY_S = 1.0


def main() -> None:
    """The process's entry point."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        settings = load(HostSettings, os.environ)
        host = Host(settings, Link(settings.url))
        _join(host, settings.url)
    except SettingsError as error:
        sys.exit(f"trellis: {error}")
    queues = ",".join(host.queues)
    make_worker_app(host).worker_main(
        ["--quiet", "worker", "-Q", queues, "-n", "simulated@%h", "--loglevel", "INFO",
         "--without-gossip", "--without-mingle", "-E"]
    )  # fmt: skip


def _join(host: Host, url: str) -> None:
    """Join as soon as the control plane answers."""
    while True:
        try:
            host.join(lambda joined, of: log.info("joined %d of %d", joined, of))
            return
        except Unavailable as error:
            log.warning("waiting for the control plane at %s: %s", url, error)
            time.sleep(RETRY_S)


if __name__ == "__main__":
    main()
