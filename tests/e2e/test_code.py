"""Code that is sent from a directory, as a person does it."""

import re
import tempfile
from pathlib import Path

import pytest

from tests.support.code import write
from tests.support.platform import Platform, running
from tests.support.wheels import a_wheel

FILES = {
    "train.py": b"from pkg import value\nprint('value', value.VALUE)\n",
    "pkg/__init__.py": b"",
    "pkg/value.py": b"VALUE = 42\n",
    "data.bin": bytes(range(256)) * 40_000,
    ".trellisignore": b"*.log\n",
    "noise.log": b"noise",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write(tmp_path / "project", FILES)


def test_a_directory_is_sent_once_and_every_job_runs_in_a_copy(platform: Platform, project: Path) -> None:
    script = "ls; python train.py; echo VALUE=13 > pkg/value.py"
    for _ in range(2):
        done = platform.run("submit", "--follow", "--dir", str(project), "--", "/bin/sh", "-c", script)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["data.bin", "pkg", "train.py", "value", "42"]
    (bundle,) = [one for one in platform.client.bundles.list() if one.name == "project"]
    assert re.search(rf"Code +bundle {bundle.digest[:12]}, 5 files", platform.run("job", "last").stdout)


def test_a_batch_script_and_an_array_run_in_a_directory(platform: Platform, project: Path) -> None:
    write(project, {"jobs/go.sh": b"#!/bin/bash\n#SBATCH -J from-a-directory -t 5\npython train.py\n"})
    done = platform.run("submit", "--follow", "--dir", str(project), str(project / "jobs/go.sh"))
    assert (done.returncode, done.stdout) == (0, "value 42\n"), done.stderr
    bundle = platform.client.bundles.push(project)
    array = platform.client.jobs.submit_array(
        command=["python", "train.py"], bundle=bundle.id, array={"indexes": "0-4"}
    )
    for job in array.items:
        assert platform.ended(job).exit_code == 0
        assert platform.lines(job) == ["value 42"]


def test_a_retry_runs_in_the_code_as_it_was(platform: Platform, project: Path) -> None:
    job = platform.client.jobs.submit(command=["python", "train.py"], bundle=platform.client.bundles.push(project).id)
    platform.ended(job)
    write(project, {"pkg/value.py": b"VALUE = 7\n"})
    platform.client.bundles.push(project)
    again = platform.client.jobs.retry(job)
    assert platform.ended(again).exit_code == 0
    assert platform.lines(again) == ["value 42"]


def test_a_job_that_runs_in_a_directory_saves_and_another_goes_on(platform: Platform, tmp_path: Path) -> None:
    program = (
        "from trellis.runtime import checkpoint\n"
        "found = checkpoint.latest()\n"
        "step = found.step + 1 if found else 1\n"
        "print('step', step)\n"
        "checkpoint.save({'step': step}, step=step)\n"
    )
    code = str(write(tmp_path / "saving", {"train.py": program.encode()}))
    first = platform.run("submit", "--follow", "--dir", code, "--checkpoint", "--", "python", "train.py")
    assert (first.returncode, first.stdout) == (0, "step 1\n"), first.stderr
    job = next(platform.client.jobs.list())
    (saved,) = platform.client.checkpoints.list(job)
    words = ("--dir", code, "--from-checkpoint", str(saved.id), "--", "python", "train.py")
    second = platform.run("submit", "--follow", *words)
    assert (second.returncode, second.stdout) == (0, "step 2\n"), second.stderr


def test_a_job_runs_with_packages_that_its_node_builds_once() -> None:
    with tempfile.TemporaryDirectory(prefix="trellis-wheels-") as folder:
        wheels = Path(folder) / "wheels"
        a_wheel(wheels, "tiny", module="VALUE = 7")
        Path(folder).chmod(0o755)
        with running(TRELLIS_PACKAGE_LINKS=str(wheels)) as platform:
            requirements = Path(folder) / "requirements.txt"
            requirements.write_text("tiny==1.0\n")
            words = ("submit", "--follow", "--requirements", str(requirements), "--", "python", "-c")
            first = platform.run(*words, "import tiny; print(tiny.VALUE)")
            assert (first.returncode, first.stdout.splitlines()[-1]) == (0, "7"), first.stderr + first.stdout
            assert "building the environment" in first.stdout + first.stderr
            second = platform.run(*words, "import tiny; print(tiny.VALUE)")
            assert (second.returncode, "building" in second.stdout + second.stderr) == (0, False)
            requirements.write_text("no-such-package\n")
            third = platform.run(*words, "pass")
            assert third.returncode == 1, third.stdout + third.stderr
            job = platform.client.jobs.get(next(platform.client.jobs.list()), verbose=True)
            assert (job.cause, job.attempt, "no-such-package" in str(job.message)) == ("environment_failed", 1, True)
