from typing import Any

import pytest

from trellis import sbatch
from trellis.errors import Invalid

GIB = 2**30


def parsed(*lines: str, **options: Any) -> dict[str, Any]:
    text = "\n".join(["#!/bin/bash", *(f"#SBATCH {line}" for line in lines), "srun python train.py", ""])
    return sbatch.parse(text, name="train.sbatch", **options)


# What is written, and what of the submission it makes: the table that a change of meaning has to change.
GOLDEN: list[tuple[str, dict[str, Any]]] = [
    ("--job-name=train", {"name": "train"}),
    ("--container-image=docker.io/library/python:3.12", {"image": "docker.io/library/python:3.12"}),
    ("--job-name train", {"name": "train"}),
    ("-J train", {"name": "train"}),
    ("-Jtrain", {"name": "train"}),
    ('--job-name="my train"', {"name": "my train"}),
    ("--job-name=train # the big one", {"name": "train"}),
    ("--account=vision", {"project": "vision"}),
    ("-A vision", {"project": "vision"}),
    ("--partition=gpu", {"queue": "gpu"}),
    ("-p gpu", {"queue": "gpu"}),
    ("--time=90", {"time_limit": 5400}),
    ("-t 30:00", {"time_limit": 1800}),
    ("--time=2:00:00", {"time_limit": 7200}),
    ("--time=1-12", {"time_limit": 129600}),
    ("--time=1-12:30", {"time_limit": 131400}),
    ("--time=1-12:30:15", {"time_limit": 131415}),
    ("--nodes=4", {"replicas": 4}),
    ("-N 4", {"replicas": 4}),
    ("--nodes=2 --ntasks=2 --ntasks-per-node=1", {"replicas": 2}),
    ("--cpus-per-task=8", {"resources": {"cpus": 8}}),
    ("-c8", {"resources": {"cpus": 8}}),
    ("-n 1 -c 4", {"resources": {"cpus": 4}}),
    ("--gpus=2", {"resources": {"gpus": 2}}),
    ("-G h100:2", {"resources": {"gpus": 2, "gpu_type": "h100"}}),
    ("--gpus=8 --nodes=4", {"resources": {"gpus": 2}, "replicas": 4}),
    ("--gpus-per-node=a100:4", {"resources": {"gpus": 4, "gpu_type": "a100"}}),
    ("--gpus-per-task=1", {"resources": {"gpus": 1}}),
    ("--gres=gpu:2", {"resources": {"gpus": 2}}),
    ("--gres=gpu:h100:2", {"resources": {"gpus": 2, "gpu_type": "h100"}}),
    ("--gres=gpu", {"resources": {"gpus": 1}}),
    ("--gres=gpu:h100", {"resources": {"gpus": 1, "gpu_type": "h100"}}),
    ("--gpus=2 --cpus-per-gpu=8", {"resources": {"cpus": 16, "gpus": 2}}),
    ("--mem=512", {"resources": {"memory": 512 * 2**20}}),
    ("--mem=16G", {"resources": {"memory": 16 * GIB}}),
    ("--mem=1T", {"resources": {"memory": 1024 * GIB}}),
    ("--mem=4096K", {"resources": {"memory": 4 * 2**20}}),
    ("--mem-per-cpu=2G --cpus-per-task=4", {"resources": {"cpus": 4, "memory": 8 * GIB}}),
    ("--mem-per-cpu=2G", {"resources": {"memory": 2 * GIB}}),
    ("--mem-per-gpu=40G --gpus=2", {"resources": {"gpus": 2, "memory": 80 * GIB}}),
    ("--array=0-9", {"array": {"indexes": "0-9"}}),
    ("-a 1,3,7", {"array": {"indexes": "1,3,7"}}),
    ("--array=0-100:10%4", {"array": {"indexes": "0-100:10", "max_parallel": 4}}),
    ("--dependency=afterok:a1", {"depends_on": [{"job": "a1", "kind": "after_success"}]}),
    (
        "-d afternotok:a1:b2,afterany:c3",
        {
            "depends_on": [
                {"job": "a1", "kind": "after_failure"},
                {"job": "b2", "kind": "after_failure"},
                {"job": "c3", "kind": "after_any"},
            ]
        },
    ),
    ("--comment='for the paper'", {"labels": {"comment": "for the paper"}}),
    ("--test-only", {"dry_run": True}),
    ("--exclusive", {"constraints": {"exclusive": True}}),
    ("-C nvme", {"constraints": {"selector": [{"label": "nvme", "operator": "exists"}]}}),
    (
        "--constraint='zone=north&!spot'",
        {
            "constraints": {
                "selector": [
                    {"label": "zone", "operator": "in", "values": ["north"]},
                    {"label": "spot", "operator": "absent"},
                ]
            }
        },
    ),
    ("--prefer=nvme", {"constraints": {"prefers": [{"label": "nvme", "operator": "exists", "weight": 100}]}}),
    (
        "-x node1,node2",
        {"constraints": {"selector": [{"label": "name", "operator": "not_in", "values": ["node1", "node2"]}]}},
    ),
    ("--spread-job", {"constraints": {"strategy": "spread"}}),
    ("--nodes=2-4", {"min_replicas": 2, "max_replicas": 4}),
    ("--nodes=3-3", {"replicas": 3}),
    ("--gres=gpu:1g.10gb:1", {"resources": {"mig_profile": "1g.10gb"}}),
    ("--gres=gpu:3g.40gb", {"resources": {"mig_profile": "3g.40gb"}}),
    ("--time=UNLIMITED", {}),
    ("--time=0", {}),
    ("--export=NONE", {}),
    ("--requeue --job-name=again", {"name": "again"}),
    ("--deadline=2030-01-31T18:00:00+00:00", {}),
]


@pytest.mark.parametrize(("line", "means"), GOLDEN, ids=[line for line, _ in GOLDEN])
def test_a_directive_means_what_it_means_in_slurm(line: str, means: dict[str, Any]) -> None:
    body = parsed(line)
    for always in ("script", "script_name", "environment", "deadline"):
        body.pop(always, None)
    assert body == {"name": "train.sbatch", **means}


WRONG = [
    ("--container=/bundles/x", "--container is not supported: name an image, with --container-image"),
    ("--frobnicate=3", "--frobnicate is not a directive known here"),
    ("-Z 3", "--Z is not a directive known here"),
    ("--output=train.log", "--output is not supported: the platform keeps the log"),
    ("-o train-%j.log", "--output is not supported"),
    ("--error train.err", "--error is not supported"),
    ("--mail-type=END", "--mail-type is not supported"),
    ("--chdir=/data", "--chdir is not supported: a job runs in a directory of its own"),
    ("--constraint='a|b'", r"'a\|b' is no condition on a label: say NAME, !NAME, NAME=VALUE"),
    ("--constraint='[a*2]'", "is no condition on a label"),
    ("-x node[1-3]", "name the nodes one by one"),
    ("--gres=gpu:1g.10gb:2", "a replica has one slice: ask for more replicas"),
    ("--nodes=4-2", "must be the fewest nodes, and then the most"),
    ("--nodes=2-", "must be a whole number above 0"),
    ("-w node7", "--nodelist is not supported"),
    ("--exclusive=user", "a job has its nodes for itself, or shares them: say --exclusive alone"),
    ("--qos=high", "--qos is not supported"),
    ("--begin=16:00", "--begin is not supported"),
    ("-H", "--hold is not supported"),
    ("--wait", "--wait is not supported: pass it to `trellis submit`"),
    ("--signal=KILL@60", "must be such as USR1@60"),
    ("--signal=R:USR1", "must be such as USR1@60"),
    ("--gres=gpu:h100:2,gpu:a100:1", "--gres=.*must be a number such as 2"),
    ("--gres=license:2", "--gres=license:2: of the generic resources only gpu"),
    ("--gpus=-1", "--gpus=-1: must be a number"),
    ("--gpus=3 --nodes=2", "can't be shared evenly among 2 nodes"),
    ("--nodes=0", "must be a whole number above 0"),
    ("--ntasks=4", "one task runs on each node; ask for more cores"),
    ("--ntasks-per-node=2", "one task runs on each node"),
    ("--cpus-per-task=two", "--cpus-per-task=two: must be a whole number"),
    ("--mem=0", "0 asks for all of a node's memory"),
    ("--mem=16GiB", "must be such as 512M or 16G"),
    ("--time=tomorrow", "--time=tomorrow: must be"),
    ("--time=2h", "--time=2h: must be minutes, or such as"),
    ("--array=9-", "--array=9-: must be such as 0-9"),
    ("--array=0-9%0", "must be such as"),
    ("--dependency=singleton", "'singleton' is not supported: use afterok"),
    ("--dependency=afterok", "afterok lacks the id of a job"),
    ("--dependency=afterok:1?afterok:2", r"'\?' \(any of them\) is not supported"),
    ("--partition=a,b", "a job waits in one queue"),
    ("--export=ALL", "'ALL' would carry your own environment along"),
    ("--export=1X=2", "'1X' can't be the name of a variable"),
    ("--deadline=tomorrow", "must be a full date and time"),
    ("--job-name=", "--job-name lacks its value"),
    ("--time", "--time lacks its value"),
    ('--job-name="open', "a quote is not closed"),
    ("hetjob", "'hetjob' is not an option"),
]


@pytest.mark.parametrize(("line", "fault"), WRONG, ids=[line for line, _ in WRONG])
def test_what_cannot_be_done_is_named_and_never_ignored(line: str, fault: str) -> None:
    with pytest.raises(Invalid, match=fault):
        parsed(line)


def test_a_warning_and_no_requeue_are_said_as_in_slurm() -> None:
    body = sbatch.parse("#!/bin/sh\n#SBATCH --signal=B:USR1@120 --no-requeue\ntrue\n")
    assert (body["warn_signal"], body["warn_before"], body["on_node_lost"]) == ("USR1", 120, "fail")
    assert body["retries"]["by_cause"]["preempted"] == {"limit": 0}
    assert sbatch.parse("#!/bin/sh\n#SBATCH --signal=12\ntrue\n")["warn_signal"] == "USR2"


def test_every_fault_is_named_at_once_with_its_line() -> None:
    with pytest.raises(Invalid) as caught:
        parsed("--time=1:00", "--output=x --frobnicate", "-J ok", "--mem=lots")
    assert [(field.pointer, field.message.split(":")[0]) for field in caught.value.fields] == [
        ("/script", "line 3"),
        ("/script", "line 3"),
        ("/script", "line 5"),
    ]


def test_a_directive_may_be_left_out_on_purpose() -> None:
    body = parsed("--output=x", "-e y", "--time=1", without={"output", "error"})
    assert body["time_limit"] == 60


def test_the_advice_that_an_error_gives_works() -> None:
    with pytest.raises(Invalid, match="leave it out with `--without mail-user`"):
        parsed("--mail-user=ada@example.org")
    parsed("--mail-user=ada@example.org", without={"mail-user"})


def test_directives_end_at_the_first_command_as_in_slurm() -> None:
    text = "#!/bin/bash\n\n# a comment\n#SBATCH -J one\n ## more\n##SBATCH -J two\n# SBATCH -J three\n#SBATCHES\necho\n#SBATCH -J four\n"
    assert sbatch.parse(text)["name"] == "one"


def test_the_script_is_sent_as_it_is_with_its_arguments() -> None:
    body = parsed("-J x", arguments=["--epochs", "3"])
    assert body["script"].startswith("#!/bin/bash\n#SBATCH -J x\n")
    assert body["script_name"] == "train.sbatch"
    assert body["arguments"] == ["--epochs", "3"]


def test_a_script_finds_the_variables_of_slurm() -> None:
    body = parsed("-J train -p gpu -N 2 -c 4 --mem=8G --gpus-per-node=2 --export=NONE", "--export=MODE=fast,EMPTY=")
    assert body["environment"] == {
        "SLURM_JOB_NAME": "train",
        "SLURM_JOB_PARTITION": "gpu",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NNODES": "2",
        "SLURM_NTASKS": "2",
        "SLURM_CPUS_PER_TASK": "4",
        "SLURM_GPUS_ON_NODE": "2",
        "SLURM_MEM_PER_NODE": "8192",
        "MODE": "fast",
        "EMPTY": "",
    }


def test_a_script_without_directives_is_none_of_slurms() -> None:
    assert not sbatch.is_batch_script("#!/bin/bash\necho hello\n#SBATCH -J x\n")
    assert sbatch.is_batch_script("#!/bin/bash\n#SBATCH -J x\n")


@pytest.mark.parametrize(
    ("name", "sent"), [("a b.sh", "a_b.sh"), (".hidden", "hidden"), ("é", "script"), ("x" * 200, "x" * 100)]
)
def test_a_file_name_is_sent_in_plain_letters(name: str, sent: str) -> None:
    assert sbatch.plain_name(name) == sent
