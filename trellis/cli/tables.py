"""Tables and sheets that fit a terminal of 100 columns."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trellis.answers import Amounts, Attempt, Gpu, Job, JobGroup, Kind, Node, Project, Queue, RoleOfJob
from trellis.cli.text import cell, cores, files, moment, span, state_cell
from trellis.holdings import Head, QueueOrder
from trellis.units import format_bytes

Row = Sequence[Text]


def table(headings: Sequence[str], rows: Iterable[Row], *, right: Iterable[str] = (), gives: str = "") -> Table:
    """Rows under headings. Columns named in `right` are set flush right; where it gets narrow `gives` alone is cut."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    cells = list(rows)
    for place, heading in enumerate(headings):
        width = max([len(heading), *(row[place].cell_len for row in cells)])
        made.add_column(
            heading,
            justify="right" if heading in right else "left",
            # Rich narrows the columns that may wrap before all others; the cells themselves never do.
            no_wrap=heading != gives,
            min_width=None if heading == gives else width,
        )
    for row in cells:
        made.add_row(*row)
    return made


def jobs_table(jobs: Iterable[Job]) -> Table:
    """One line a job."""
    rows = [_group_row(job, job.group) if job.group else _job_row(job) for job in jobs]
    return table(["ID", "NAME", "STATE", "QUEUE", "WAIT", "RUN"], rows, right=("WAIT", "RUN"), gives="NAME")


def _job_row(job: Job) -> Row:
    times = (cell(span(job.wait_s)), cell(span(job.run_s)))
    return (cell(job.id), cell(job.name), state_cell(job.state), cell(job.queue), *times)


def _group_row(job: Job, group: JobGroup) -> Row:
    """All jobs of a group in one line: in place of a state how many are in the commonest ones."""
    name = f"{group.name} ({group.kind} of {group.count})"
    return (cell(group.id), cell(name), _states(group, 2), cell(job.queue), cell(span(job.wait_s)), cell("-"))


def _states(group: JobGroup, at_most: int) -> Text:
    """How many jobs are in which state, the commonest first."""
    ranked = sorted(group.states.items(), key=lambda pair: (-pair[1], pair[0]))
    words = [Text.assemble(f"{count} ", state_cell(state)) for state, count in ranked[:at_most]]
    return Text(", ").join([*words, *([Text("...")] if len(ranked) > at_most else [])])


def group_sheet(group: JobGroup) -> RenderableType:
    """All there is to know about an array or a workflow."""
    sheet = Table.grid(padding=(0, 2, 0, 0))
    sheet.add_column(style="bold", no_wrap=True)
    sheet.add_column(overflow="fold")
    rows = [
        (group.kind.capitalize(), cell(group.id)),
        ("Name", cell(group.name)),
        ("User", cell(group.user)),
        ("Submitted", cell(moment(group.submitted_at))),
        ("Jobs", cell(group.count)),
        ("States", _states(group, len(group.states))),
    ]
    for name, value in rows:
        value.no_wrap, value.overflow = False, "fold"
        sheet.add_row(name, value)
    return sheet


def job_sheet(job: Job) -> RenderableType:
    """All there is to know about one job."""
    rows: list[tuple[str, Text]] = [
        ("Job", cell(job.id)),
        ("Name", cell(job.name)),
        ("State", state_cell(job.state)),
        *_optional("Why", job.why),
        *_optional("Message", job.message),
        *([("Starts", cell(f"about {moment(job.expected_start_at)}"))] if job.expected_start_at else []),
        *_optional("Cause", job.cause),
        *_optional("Exit code", job.exit_code),
        ("Project", cell(job.project or job.project_id)),
        ("Queue", cell(f"{job.queue}, priority {job.priority}")),
        ("User", cell(job.user)),
        ("Needs", cell(wants(job))),
        *_optional("Where", _where(job.constraints)),
        *_optional("Code", _code(job.bundle)),
        ("Submitted", cell(f"{moment(job.submitted_at)}, waited {span(job.wait_s)}")),
        ("Started", cell(moment(job.started_at))),
        ("Ended", cell(f"{moment(job.ended_at)}, ran {span(job.run_s)}" if job.ended_at else "-")),
        *_optional("Labels", ", ".join(f"{key}={value}" for key, value in job.labels.items()) or None),
        *_optional("Waits for", ", ".join(_dependency(item) for item in job.depends_on) or None),
        *_optional("Retry of", job.retry_of),
        *_optional("Array", f"{job.array_id}, index {job.array_index}" if job.array_id else None),
        *_optional("Workflow", f"{job.workflow}, {job.workflow_id}" if job.workflow_id else None),
    ]
    sheet = Table.grid(padding=(0, 2, 0, 0))
    sheet.add_column(style="bold", no_wrap=True)
    sheet.add_column(overflow="fold")
    for name, value in rows:
        value.no_wrap, value.overflow = False, "fold"
        sheet.add_row(name, value)
    return Group(sheet, Text(), attempts_table(job.attempts)) if job.attempts else sheet


def _code(bundle: Mapping[str, Any] | None) -> str | None:
    if not bundle:
        return None
    return f"bundle {bundle['digest'][:12]}, {files(bundle['files'])}, {format_bytes(bundle['size_bytes'])}"


def attempts_table(attempts: Iterable[Attempt]) -> Table:
    """One line a replica of each attempt."""
    headings = ["ATTEMPT", "REPLICA", "STATE", "NODE", "EXIT", "CAUSE", "STARTED"]
    rows = []
    for attempt in attempts:
        for replica in attempt.replicas:
            number, index, state = cell(attempt.number), cell(replica.index), state_cell(replica.state)
            ended, cause = cell(replica.exit_code), cell(attempt.cause)
            rows.append((number, index, state, cell(replica.node), ended, cause, cell(moment(attempt.started_at))))
    return table(headings, rows, right=("ATTEMPT", "REPLICA", "EXIT"), gives="NODE")


def nodes_table(nodes: Iterable[Node]) -> Table:
    """One line a node: what is used of what there is."""
    headings = ["NAME", "STATE", "CPUS", "MEMORY", "GPUS", "ISOLATION", "LAST SEEN"]
    rows = []
    for node in nodes:
        cpus = cell(f"{cores(node.cpu_milli_used)}/{cores(node.cpu_milli)}")
        memory = cell(f"{format_bytes(node.memory_bytes_used)} / {format_bytes(node.memory_bytes)}")
        gpus, seen = cell(_gpus(node)), cell(moment(node.last_seen_at))
        rows.append((cell(node.name), state_cell(node.state), cpus, memory, gpus, cell(node.isolation), seen))
    return table(headings, rows, right=("CPUS", "MEMORY"), gives="GPUS")


def kinds_table(kinds: Iterable[Kind]) -> Table:
    """One line for all nodes that are alike."""
    headings = ["NODES", "READY", "EACH", "CPUS HELD", "MEMORY HELD", "GPUS HELD"]
    rows = []
    for kind in kinds:
        gpus = f"{kind.gpus} {kind.gpu_model}, " if kind.gpus else ""
        each = f"{gpus}{cores(kind.cpu_milli)} CPU, {format_bytes(kind.memory_bytes)}"
        held = kind.held
        cpus = f"{cores(held['cpu_milli'])}/{cores(kind.nodes * kind.cpu_milli)}"
        memory = f"{format_bytes(held['memory_bytes'])} / {format_bytes(kind.nodes * kind.memory_bytes)}"
        devices = f"{cores(held['gpu_milli'])}/{kind.nodes * kind.gpus}" if kind.gpus else "-"
        words = (f"{kind.nodes:,}", f"{kind.nodes_ready:,}", each, cpus, memory, devices)
        rows.append(tuple(cell(word) for word in words))
    return table(headings, rows, right=("NODES", "READY", "CPUS HELD", "MEMORY HELD", "GPUS HELD"), gives="EACH")


def gpus_table(nodes: Iterable[Node]) -> Table:
    """One line a device."""
    headings = ["NODE", "GPU", "MODEL", "HELD", "BUSY", "MEMORY", "HEAT", "POWER", "HEALTH"]
    rows = [_gpu_row(node, gpu) for node in nodes for gpu in node.gpus]
    return table(headings, rows, right=("GPU", "HELD", "BUSY", "MEMORY", "HEAT", "POWER"), gives="MODEL")


def _gpu_row(node: Node, gpu: Gpu) -> Row:
    used = "-" if gpu.memory_used_bytes is None else format_bytes(gpu.memory_used_bytes)
    readings = (
        f"{gpu.milli_used / 10:g} %",
        _reading(gpu.utilisation_percent, "%"),
        f"{used} / {format_bytes(gpu.memory_bytes)}",
        _reading(gpu.temperature_c, "°C"),
        _reading(gpu.power_w, "W"),
        "quarantined" if gpu.quarantine else "ok" if gpu.healthy else "faulty",
    )
    return (cell(node.name), cell(gpu.index), cell(gpu.model), *(cell(text) for text in readings))


def traits_table(nodes: Iterable[Node]) -> Table:
    """One line a node: where it lies, whose it is, what is said of it."""
    headings = ["NAME", "POOL", "DOMAINS", "TAINTS", "USD/H", "LABELS"]
    rows = []
    for node in nodes:
        taints = ", ".join(_taint(taint) for taint in node.taints)
        price = f"{node.usd_per_hour:g}{' spot' if node.spot else ''}" if node.usd_per_hour or node.spot else "-"
        words = (node.name, node.pool or "-", _pairs(node.domains), taints or "-", price, _pairs(node.labels))
        rows.append(tuple(cell(word) for word in words))
    return table(headings, rows, right=("USD/H",), gives="LABELS")


def _taint(taint: Mapping[str, str]) -> str:
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{value}{' (rather not)' if taint.get('effect') == 'avoid' else ''}"


def _pairs(said: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in said.items()) or "-"


def queues_table(queues: Iterable[Queue]) -> Table:
    """One line a queue."""
    headings = ["NAME", "STATE", "PENDING", "RUNNING", "GPUS", "WEIGHT", "POLICY", "POOL"]
    rows = []
    for queue in queues:
        gpus = cores(queue.held.get("gpu_milli") or 0)
        counts = (cell(queue.pending), cell(queue.running), cell(gpus), cell(queue.weight))
        policies = cell(", ".join(filter(None, (queue.policy, queue.second_policy))) or "-")
        rows.append((cell(queue.name), state_cell(queue.state), *counts, policies, cell(queue.pool or "-")))
    return table(headings, rows, right=("PENDING", "RUNNING", "GPUS", "WEIGHT"), gives="NAME")


def heads_table(heads: Iterable[Head]) -> Table:
    """One line for all jobs that wait for one reason, in the order in which they are tried."""
    headings = ["PLACE", "JOBS", "PRIORITY", "PROJECT", "NAME", "WHY"]
    rows = []
    for head in heads:
        why = head.message or head.reason or "-"
        words = (head.position, head.count, head.priority, head.project or "another", head.name or "-", why)
        rows.append(tuple(cell(word) for word in words))
    return table(headings, rows, right=("PLACE", "JOBS", "PRIORITY"), gives="WHY")


def ranked_by(order: QueueOrder) -> str:
    """By which policies the jobs of a queue are ranked, in words."""
    return ", then ".join(filter(None, (order.policy, order.second_policy))) or "age"


def projects_table(projects: Iterable[Project]) -> Table:
    """One line a project, and the role in it."""
    rows = []
    for project in projects:
        organisation, role = project.organisation or project.organisation_id, project.role.replace("_", " ")
        rows.append((cell(project.name), cell(organisation), cell(role), cell(project.id)))
    return table(["PROJECT", "ORGANISATION", "ROLE", "ID"], rows, gives="ORGANISATION")


def needs(amounts: Amounts, replicas: int) -> str:
    """What a job asks for, in words."""
    parts = [f"{cores(amounts.cpu_milli)} CPU", format_bytes(amounts.memory_bytes)]
    if amounts.gpu_milli:
        model = " or ".join(amounts.gpu_types) or amounts.gpu_type
        parts.append(f"{cores(amounts.gpu_milli)} GPU{f' {model}' if model else ''}")
    if amounts.mig_profile:
        parts.append(f"a slice {amounts.mig_profile}")
    return ", ".join(parts) + (f", on each of {replicas} replicas" if replicas > 1 else "")


def wants(job: Job) -> str:
    """What all of a job's replicas ask for, in words."""
    if not job.roles:
        return needs(job.resources, job.replicas) + (
            f", up to {job.max_replicas}" if job.max_replicas > job.replicas else ""
        )
    return "; ".join(f"{role.name}: {_up_to(role)}" for role in job.roles)


def _up_to(role: RoleOfJob) -> str:
    most = f", up to {role.max_replicas}" if role.max_replicas > role.min_replicas else ""
    return needs(role.resources, role.min_replicas) + most


def gpu_milli_of(job: Job) -> int:
    """What all replicas that a job begins with ask for, in thousandths of a device."""
    if job.roles:
        return sum(role.min_replicas * role.resources.gpu_milli for role in job.roles)
    return job.replicas * job.resources.gpu_milli


def _where(constraints: Mapping[str, Any]) -> str:
    """What it asks of its nodes, as it was submitted."""
    return ", ".join(f"{name} {_said(value)}" for name, value in constraints.items())


def _said(value: Any) -> str:
    if isinstance(value, Mapping) and {"label", "operator"} <= value.keys():  # a term
        words = [value["label"], value["operator"].replace("_", " "), " or ".join(value.get("values", ()))]
        return " ".join(filter(None, words)) + (f" ({value['weight']} points)" if "weight" in value else "")
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_said(inner)}" for key, inner in value.items())
    return " and ".join(map(_said, value)) if isinstance(value, list) else str(value)


def _optional(name: str, value: object) -> list[tuple[str, Text]]:
    return [] if value is None or value == "" else [(name, cell(value))]


def _dependency(item: object) -> str:
    if not isinstance(item, dict):
        return str(item)
    return f"{item.get('job', item.get('job_id', ''))} ({str(item.get('kind', '')).replace('_', ' ')})"


def _gpus(node: Node) -> str:
    if not node.gpus:
        return "-"
    held = sum(gpu.milli_used for gpu in node.gpus)
    return f"{cores(held)}/{len(node.gpus)} {node.gpus[0].model}"


def _reading(value: int | None, unit: str) -> str:
    return "-" if value is None else f"{value} {unit}"
