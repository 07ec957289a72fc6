"""Slurm batch scripts as Trellis jobs: every `#SBATCH` line is understood or named in an error, never ignored.

What differs from Slurm: with `--nodes=N` the script runs once on each node, as a replica, not on the first alone;
nothing of the submitter's environment is carried along; the log is kept by the platform.
"""

import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trellis.errors import Field, Invalid
from trellis.sbatch_rules import RULES, SHORT, TAKES_VALUE, UNSUPPORTED, Draft

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Directive:
    """One option of one `#SBATCH` line; `value` is None where none was given."""

    line: int
    name: str
    value: str | None


def is_batch_script(text: str) -> bool:
    """Whether the text has at least one `#SBATCH` line that Slurm would read."""
    return any(True for _ in _lines(text))


def parse(
    text: str, *, name: str = "script.sh", arguments: Sequence[str] = (), without: Collection[str] = ()
) -> dict[str, Any]:
    """The submission that a batch script stands for; directives named in `without` are left out on purpose.

    Raises: Invalid with one field for each directive that is unknown, unsupported or wrong, by line.
    """
    draft, faults = Draft(), []
    for item in _directives(text):
        if isinstance(item, Field):
            faults.append(item)
        elif item.name not in without and (fault := _apply(draft, item)):
            faults.append(Field("/script", f"line {item.line}: {fault}"))
    if faults:
        raise Invalid(*faults)
    try:
        _settle(draft)
    except ValueError as error:
        raise Invalid(Field("/script", str(error))) from error
    script = {"script": text, "script_name": plain_name(name), **({"arguments": list(arguments)} if arguments else {})}
    return {"name": name, **draft.body, **script, "environment": _slurm_environment(draft, name)}


def plain_name(name: str) -> str:
    """A file's name in the letters that a node takes for one."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip("._-")[:100] or "script"


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The `#SBATCH` lines that come before the first command, as Slurm reads them."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("#SBATCH") and (len(line) == 7 or line[7].isspace()):
            yield number, line[7:]
        elif line.strip() and not line.lstrip().startswith("#"):
            return


def _directives(text: str) -> Iterator[Directive | Field]:
    for number, line in _lines(text):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            yield Field("/script", f"line {number}: a quote is not closed")
            continue
        while words:
            yield _take(number, words)


def _take(line: int, words: list[str]) -> Directive | Field:
    """The next option, taken off the front of `words` with its value."""
    word = words.pop(0)
    if word.startswith("--"):
        name, equals, text = word[2:].partition("=")
        value = text if equals else None
    elif len(word) > 1 and word[0] == "-":
        name, value = SHORT.get(word[1], word[1]), word[2:] or None
    else:
        return Field("/script", f"line {line}: {word!r} is not an option")
    takes_value = name in TAKES_VALUE
    if takes_value and value is None and words and not words[0].startswith("-"):
        value = words.pop(0)
    if takes_value and not value:
        return Field("/script", f"line {line}: --{name} lacks its value")
    return Directive(line, name, value)


def _apply(draft: Draft, directive: Directive) -> str | None:
    """Note one directive; answers what is wrong with it, or None."""
    name = directive.name
    if rule := RULES.get(name):
        try:
            rule(draft, directive.value or "")
        except ValueError as error:
            return f"--{name}={directive.value}: {error}" if directive.value else f"--{name}: {error}"
        return None
    if name in UNSUPPORTED:
        return f"--{name} is not supported: {UNSUPPORTED[name]} (or leave it out with `--without {name}`)"
    return f"--{name} is not a directive known here"


def _settle(draft: Draft) -> None:
    """Turn what was said about tasks, nodes and totals into what one replica needs. Raises ValueError."""
    if draft.ntasks is not None and draft.ntasks != draft.nodes:
        raise ValueError(
            f"--ntasks={draft.ntasks} with --nodes={draft.nodes}: one task runs on each node; ask for more cores with"
            " --cpus-per-task, for more nodes with --nodes"
        )
    gpus = _gpus_per_node(draft)
    cpus = draft.cpus or (draft.cpus_per_gpu or 0) * gpus or None
    memory = draft.memory or (draft.memory_per_cpu or 0) * (cpus or 1) or (draft.memory_per_gpu or 0) * gpus or None
    wanted = {
        "cpus": cpus, "memory": memory, "gpus": gpus or None, "gpu_type": draft.gpu_type if gpus else None,
        "mig_profile": draft.mig_profile,
    }  # fmt: skip
    if resources := {key: value for key, value in wanted.items() if value is not None}:
        draft.body["resources"] = resources
    if draft.most_nodes is not None and draft.most_nodes > draft.nodes:
        draft.body |= {"min_replicas": draft.nodes, "max_replicas": draft.most_nodes}
    elif draft.nodes > 1:
        draft.body["replicas"] = draft.nodes
    if draft.constraints:
        draft.body["constraints"] = draft.constraints


def _gpus_per_node(draft: Draft) -> int:
    if draft.gpus_per_node is not None or draft.gpus_total is None:
        return draft.gpus_per_node or 0
    each, rest = divmod(draft.gpus_total, draft.nodes)
    if rest:
        raise ValueError(f"--gpus={draft.gpus_total} can't be shared evenly among {draft.nodes} nodes")
    return each


def _slurm_environment(draft: Draft, name: str) -> dict[str, str]:
    """The variables of Slurm that can be known now; those of an array's element are set when it starts."""
    resources = draft.body.get("resources", {})
    memory = resources.get("memory")
    known = {
        "SLURM_JOB_NAME": draft.body.get("name", name),
        "SLURM_JOB_PARTITION": draft.body.get("queue"),
        "SLURM_JOB_NUM_NODES": draft.nodes,
        "SLURM_NNODES": draft.nodes,
        "SLURM_NTASKS": draft.nodes,
        "SLURM_CPUS_PER_TASK": resources.get("cpus"),
        "SLURM_GPUS_ON_NODE": resources.get("gpus"),
        "SLURM_MEM_PER_NODE": memory // _MIB if memory else None,
    }
    return {key: str(value) for key, value in known.items() if value is not None} | draft.environment
