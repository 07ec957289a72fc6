from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.foreign import servers
from tests.support.platform import running
from trellis.direct import Direct


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_with_servers_that_were_there_already_a_job_runs_to_its_end(broker: str) -> None:
    with (
        TemporaryDirectory(prefix="trellis-e2e-") as folder,
        servers(Path(folder), broker) as given,
        running(1, **given) as platform,
    ):
        assert set(platform.pids()) == {"api", "control", "beat", "node-1", "flower"}
        job = platform.run_job("/bin/sh", "-c", "echo hello; exit 5")
        assert (job.state, job.exit_code, job.attempt) == ("failed", 5, 1)
        assert platform.lines(job) == ["hello"]
        second = platform.client.jobs.submit(command=["/bin/sh", "-c", "echo begun; sleep 600"])
        platform.wait_line(second, "begun")
        platform.client.jobs.cancel(second)
        assert platform.ended(second).state == "cancelled"
        direct = Direct(given["TRELLIS_BROKER_URL"], platform.login["api_key"])
        assert direct.jobs.get(job).exit_code == 5
        direct.close()
