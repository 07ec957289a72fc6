"""What each `#SBATCH` directive means here: one small rule a directive, or why there is none."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trellis.terms import read_term
from trellis.units import parse_seconds
from trellis.vocabulary import WarnSignal

_MEMORY = re.compile(r"(\d{1,15})(?:([KMGT])B?)?", re.IGNORECASE)
_MEMORY_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_GPUS = re.compile(r"(?:([A-Za-z][\w.-]*):)?(\d{1,6})|([A-Za-z][\w.-]*)")
_SLICE = re.compile(r"([1-7]g\.\d{1,3}gb(?:\+me)?)(?::(\d{1,6}))?", re.IGNORECASE)
_INDEXES = re.compile(r"(\d+(?:-\d+(?::[1-9]\d*)?)?(?:,\d+(?:-\d+(?::[1-9]\d*)?)?)*)(?:%([1-9]\d*))?")
_SIGNAL = re.compile(r"(?:B:)?([A-Za-z0-9]{1,10})(?:@([1-9]\d{0,4}))?")
_SIGNAL_NUMBERS = {"1": "HUP", "2": "INT", "10": "USR1", "12": "USR2", "15": "TERM", "18": "CONT", "28": "WINCH"}
_SHELL_NAME = re.compile(r"[A-Za-z_]\w*")
_DEPENDENCIES = {"afterok": "after_success", "afternotok": "after_failure", "afterany": "after_any"}


@dataclass(slots=True)
class Draft:
    """What the directives said so far; amounts that depend on each other are settled at the end."""

    body: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    nodes: int = 1
    ntasks: int | None = None
    cpus: int | None = None
    cpus_per_gpu: int | None = None
    gpus_total: int | None = None
    gpus_per_node: int | None = None
    gpu_type: str | None = None
    mig_profile: str | None = None
    most_nodes: int | None = None
    constraints: dict[str, Any] = field(default_factory=dict)
    memory: int | None = None
    memory_per_cpu: int | None = None
    memory_per_gpu: int | None = None


# Each rule raises ValueError with the way out.


def _into(key: str) -> Callable[[Draft, str], None]:
    def rule(draft: Draft, value: str) -> None:
        draft.body[key] = value

    return rule


def _count(attribute: str) -> Callable[[Draft, str], None]:
    def rule(draft: Draft, value: str) -> None:
        setattr(draft, attribute, _whole(value))

    return rule


def _amount(attribute: str) -> Callable[[Draft, str], None]:
    def rule(draft: Draft, value: str) -> None:
        setattr(draft, attribute, _memory(value))

    return rule


def _gpus(attribute: str) -> Callable[[Draft, str], None]:
    def rule(draft: Draft, value: str) -> None:
        if (slice_ := _SLICE.fullmatch(value)) is not None:
            if int(slice_[2] or 1) != 1:
                raise ValueError("a replica has one slice: ask for more replicas")
            draft.mig_profile = slice_[1]
            return
        match = _GPUS.fullmatch(value)
        if match is None:
            raise ValueError("must be a number such as 2, or h100:2, of one type")
        draft.gpu_type = match[1] or match[3] or draft.gpu_type
        setattr(draft, attribute, int(match[2] or 1))

    return rule


def _gres(draft: Draft, value: str) -> None:
    kind, _, rest = value.partition(":")
    if kind.removeprefix("gres/") != "gpu":
        raise ValueError("of the generic resources only gpu is known here")
    _gpus("gpus_per_node")(draft, rest or "1")


def _time(draft: Draft, value: str) -> None:
    if value.upper() in ("UNLIMITED", "INFINITE", "0"):
        return
    # A bare number is minutes in Slurm, seconds in Trellis.
    seconds = 60 * int(value) if value.isdigit() else parse_seconds(value) if re.search("[-:]", value) else 0
    if seconds <= 0:
        raise ValueError("must be minutes, or such as 30:00, 2:00:00 or 1-12:00:00")
    draft.body["time_limit"] = seconds


def _partition(draft: Draft, value: str) -> None:
    if "," in value:
        raise ValueError("a job waits in one queue: name one")
    draft.body["queue"] = value


def _nodes(draft: Draft, value: str) -> None:
    fewest, dash, most = value.partition("-")
    draft.nodes = _whole(fewest)
    draft.most_nodes = _whole(most) if dash else None
    if draft.most_nodes is not None and draft.most_nodes < draft.nodes:
        raise ValueError("must be the fewest nodes, and then the most, such as 2-4")


def _features(key: str, **also: int) -> Callable[[Draft, str], None]:
    """Features of nodes are labels here; all conditions that are joined by `&` must hold."""

    def rule(draft: Draft, value: str) -> None:
        terms = [read_term(part) | also for part in value.split("&")]
        draft.constraints.setdefault(key, []).extend(terms)

    return rule


def _exclude(draft: Draft, value: str) -> None:
    if "[" in value:
        raise ValueError("name the nodes one by one: ranges in brackets are not supported")
    term = {"label": "name", "operator": "not_in", "values": value.split(",")}
    draft.constraints.setdefault("selector", []).append(term)


def _exclusive(draft: Draft, value: str) -> None:
    if value:
        raise ValueError("a job has its nodes for itself, or shares them: say --exclusive alone")
    draft.constraints["exclusive"] = True


def _spread(draft: Draft, _: str) -> None:
    draft.constraints["strategy"] = "spread"


def _one_task_a_node(_: Draft, value: str) -> None:
    if _whole(value) != 1:
        raise ValueError("one task runs on each node: ask for more cores with --cpus-per-task")


def _array(draft: Draft, value: str) -> None:
    match = _INDEXES.fullmatch(value)
    if match is None:
        raise ValueError("must be such as 0-9, 1,3,7 or 0-100:10%4")
    draft.body["array"] = {"indexes": match[1], **({"max_parallel": int(match[2])} if match[2] else {})}


def _dependency(draft: Draft, value: str) -> None:
    if "?" in value:
        raise ValueError("a job waits for all of its dependencies: '?' (any of them) is not supported")
    found = []
    for part in value.split(","):
        kind, *jobs = part.split(":")
        if kind not in _DEPENDENCIES:
            raise ValueError(f"{kind!r} is not supported: use afterok, afternotok or afterany")
        if not jobs or not all(jobs):
            raise ValueError(f"{kind} lacks the id of a job")
        found += [{"job": job, "kind": _DEPENDENCIES[kind]} for job in jobs]
    draft.body["depends_on"] = found


def _export(draft: Draft, value: str) -> None:
    if value.upper() in ("NONE", "NIL"):
        return
    for part in value.split(","):
        name, equals, text = part.partition("=")
        if not equals:
            raise ValueError(f"{part!r} would carry your own environment along; say --export=NAME=VALUE or NONE")
        if not _SHELL_NAME.fullmatch(name):
            raise ValueError(f"{name!r} can't be the name of a variable")
        draft.environment[name] = text


def _comment(draft: Draft, value: str) -> None:
    draft.body["labels"] = {"comment": value}


def _deadline(draft: Draft, value: str) -> None:
    if "T" not in value:
        raise ValueError("must be a full date and time such as 2030-01-31T18:00:00")
    draft.body["deadline"] = datetime.fromisoformat(value).astimezone().isoformat()


def _dry_run(draft: Draft, _: str) -> None:
    draft.body["dry_run"] = True


def _signal(draft: Draft, value: str) -> None:
    match = _SIGNAL.fullmatch(value)
    name = match[1].upper().removeprefix("SIG") if match else ""
    name = _SIGNAL_NUMBERS.get(name, name)
    if match is None or name not in list(WarnSignal):
        raise ValueError(f"must be such as USR1@60, one of {', '.join(WarnSignal)}, to the processes that handle it")
    draft.body |= {"warn_signal": name, "warn_before": int(match[2] or 60)}


def _no_requeue(draft: Draft, _: str) -> None:
    never = {"limit": 0}
    draft.body |= {"on_node_lost": "fail", "retries": {"by_cause": {"preempted": never, "node_stopped": never}}}


def _as_always(_: Draft, __: str) -> None:
    """What the directive asks for is what Trellis does anyway."""


RULES: dict[str, Callable[[Draft, str], None]] = {
    "job-name": _into("name"),
    "account": _into("project"),
    "partition": _partition,
    "time": _time,
    "nodes": _nodes,
    "ntasks": _count("ntasks"),
    "ntasks-per-node": _one_task_a_node,
    "cpus-per-task": _count("cpus"),
    "cpus-per-gpu": _count("cpus_per_gpu"),
    "gpus": _gpus("gpus_total"),
    "gpus-per-node": _gpus("gpus_per_node"),
    "gpus-per-task": _gpus("gpus_per_node"),
    "gres": _gres,
    "constraint": _features("selector"),
    "prefer": _features("prefers", weight=100),
    "exclude": _exclude,
    "exclusive": _exclusive,
    "spread-job": _spread,
    "mem": _amount("memory"),
    "mem-per-cpu": _amount("memory_per_cpu"),
    "mem-per-gpu": _amount("memory_per_gpu"),
    "array": _array,
    "dependency": _dependency,
    "comment": _comment,
    "deadline": _deadline,
    "export": _export,
    "requeue": _as_always,
    "no-requeue": _no_requeue,
    "signal": _signal,
    "container-image": _into("image"),
    "test-only": _dry_run,
}
_FLAGS = frozenset({"requeue", "test-only", "no-requeue", "hold", "wait", "parsable", "verbose", "quiet", "overcommit",
                    "oversubscribe", "contiguous", "exclusive", "spread-job", "use-min-nodes", "ignore-pbs",
                    "reboot", "hetjob"})  # fmt: skip
_LOG = "the platform keeps the log, read it with `trellis logs`"
_SUBMIT = "pass it to `trellis submit` instead"
_PLACE = "the scheduler chooses the nodes; narrow them with --constraint, --exclude or --gpus TYPE:N"
_TELL = "nobody is mailed"
_BIND = "a replica has its devices and cores to itself"
UNSUPPORTED = {
    **dict.fromkeys(("output", "error", "open-mode"), _LOG),
    "input": "standard input is empty",
    **dict.fromkeys(("mail-type", "mail-user"), _TELL),
    "chdir": "a job runs in a directory of its own; use `cd` in the script",
    **dict.fromkeys(("nodelist", "nodefile", "cluster-constraint", "switches"), _PLACE),
    **dict.fromkeys(("contiguous", "use-min-nodes", "distribution", "clusters"), _PLACE),
    **dict.fromkeys(("oversubscribe", "overcommit", "core-spec", "thread-spec"), _BIND),
    **dict.fromkeys(("gpu-bind", "cpu-freq", "hint", "mem-bind", "threads-per-core", "sockets-per-node"), _BIND),
    **dict.fromkeys(("cores-per-socket", "ntasks-per-core", "ntasks-per-socket", "extra-node-info"), _BIND),
    **dict.fromkeys(("ntasks-per-gpu", "mincpus", "gpus-per-socket"), "say --cpus-per-task and --gpus-per-node"),
    **dict.fromkeys(("wait", "parsable", "verbose", "quiet"), _SUBMIT),
    **dict.fromkeys(("priority", "nice"), "Slurm counts otherwise; pass --priority to `trellis submit`"),
    "qos": "what a job may use is its project's and its queue's matter",
    "begin": "a job can't be told to start later",
    "hold": "a job can't be held back; submit it later",
    "time-min": "the time limit is what --time says",
    "export-file": "say --export=NAME=VALUE",
    "get-user-env": "no login environment is carried along",
    **dict.fromkeys(("licenses", "reservation", "tmp", "bb", "bbf", "network", "profile", "wckey"), "there is no such thing"),
    **dict.fromkeys(("kill-on-invalid-dep", "no-kill", "reboot", "power", "propagate"), "there is no such thing"),
    "container": "name an image, with --container-image",
    **dict.fromkeys(("uid", "gid"), "a job belongs to whoever submits it"),
    "wrap": "write `trellis submit -- sh -c '...'`",
    "hetjob": "submit each part as a job of its own",
}  # fmt: skip
TAKES_VALUE = (RULES.keys() | UNSUPPORTED.keys()) - _FLAGS
SHORT = {"J": "job-name", "A": "account", "p": "partition", "t": "time", "N": "nodes", "n": "ntasks", "a": "array",
          "c": "cpus-per-task", "G": "gpus", "d": "dependency", "o": "output", "e": "error", "i": "input",
          "D": "chdir", "C": "constraint", "w": "nodelist", "x": "exclude", "F": "nodefile", "q": "qos",
          "b": "begin", "H": "hold", "L": "licenses", "M": "clusters", "m": "distribution", "W": "wait",
          "Q": "quiet", "v": "verbose", "s": "oversubscribe", "O": "overcommit", "S": "core-spec",
          "k": "no-kill", "B": "extra-node-info"}  # fmt: skip


def _whole(value: str) -> int:
    if not re.fullmatch(r"\d{1,9}", value) or int(value) == 0:
        raise ValueError("must be a whole number above 0")
    return int(value)


def _memory(value: str) -> int:
    match = _MEMORY.fullmatch(value)
    if match is None:
        raise ValueError("must be such as 512M or 16G (a bare number is MiB)")
    if int(match[1]) == 0:
        raise ValueError("0 asks for all of a node's memory: say how much is needed")
    return int(match[1]) * _MEMORY_UNITS[(match[2] or "M").upper()]
