import hashlib
import json
from pathlib import Path

from tests.support.platform import Platform


def test_the_example_trains_through_submit_wait_and_its_artifact_comes_back_whole(
    platform: Platform, tmp_path: Path
) -> None:
    done = platform.run("--json", "submit", "--wait", "examples/train_digits.py")
    assert done.returncode == 0, done.stdout + done.stderr
    job = platform.client.jobs.get(json.loads(done.stdout)["id"])
    assert (job.state, job.exit_code, job.attempt) == ("succeeded", 0, 1)
    assert platform.client.jobs.metrics(job)["accuracy"].value > 0.9
    artifacts = {artifact.name: artifact for artifact in platform.client.jobs.artifacts(job)}
    assert set(artifacts) == {"digits.npz", "confusion.json"}
    file = platform.client.jobs.download(job, artifacts["digits.npz"], tmp_path / "digits.npz")
    assert artifacts["digits.npz"].digest.endswith(hashlib.sha256(file.read_bytes()).hexdigest())
    assert file.stat().st_size == artifacts["digits.npz"].size_bytes
