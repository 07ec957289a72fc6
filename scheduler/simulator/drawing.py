"""Pictures of a run, as SVG: use over time, waits by size, and what ran on which node."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from math import floor, log10
from zlib import crc32

from scheduler.simulator.report import percentile
from scheduler.simulator.run import History, Span
from scheduler.simulator.usage import Moment, follow
from scheduler.snapshot import WHOLE

WIDTH, LEFT, RIGHT = 1000, 90, 20
PLOT = WIDTH - LEFT - RIGHT
MOST_ROWS = 40
MOST_BARS = 20_000
"""More nodes, or more stays, are not drawn: nobody could tell them apart."""

_INK, _PALE, _BLUE, _ORANGE = "#222222", "#dddddd", "#1f6fb2", "#d9822b"


def draw(history: History, title: str) -> str:
    """Return one picture with the three charts below each other. Raises ValueError where nothing ran."""
    if not history.spans:
        raise ValueError("nothing ran: there is nothing to draw")
    begin = min(span.started_at for span in history.spans)
    end = max(span.ended_at for span in history.spans)
    axis = _Axis(begin, max(end, begin + 1))
    body = [_text(LEFT, 28, title, size=18)]
    top = 60
    for name, draw_chart in (("In use, %", _draw_use), ("Wait by size", _draw_waits), ("Nodes", _draw_nodes)):
        body.append(_text(LEFT, top, name, size=14))
        marks, height = draw_chart(history, axis, top + 12)
        body += marks
        top += height + 64
    header = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}">'
    style = '<style>text{font-family:"DejaVu Sans",Arial,sans-serif}</style>'
    paper = f'<rect width="{WIDTH}" height="{top}" fill="white"/>'
    return "\n".join([header, style, paper, *body, "</svg>"])


class _Axis:
    """Time from left to right, in hours or in days."""

    def __init__(self, begin: float, end: float) -> None:
        self._begin = begin
        self._span = end - begin
        self._unit, self._name = (86_400.0, "d") if self._span > 3 * 86_400 else (3600.0, "h")
        wished = self._span / self._unit / 6
        power = 10.0 ** floor(log10(wished))
        self._step = next(each * power for each in (1, 2, 5, 10) if each * power >= wished)

    def x(self, at: float) -> float:
        """Where a moment lies."""
        return LEFT + PLOT * (at - self._begin) / self._span

    def ticks(self, top: float, height: float) -> Iterable[str]:
        """Some round times since the beginning, named below the chart."""
        for count in range(int(self._span / self._unit / self._step) + 1):
            x = LEFT + PLOT * count * self._step * self._unit / self._span
            yield _line(x, top, x, top + height, _PALE)
            yield _text(x, top + height + 16, f"{count * self._step:g} {self._name}", anchor="middle")


def _draw_use(history: History, axis: _Axis, top: float) -> tuple[list[str], int]:
    """Two stepped lines: GPUs, where there are any, and CPUs."""
    height = 160
    marks = [*axis.ticks(top, height), *_scale(top, height, ("100", "50", "0"))]
    moments = _thin(follow(history).moments)
    has_gpus = any(any(node.gpu_milli_free) for node in history.scenario.nodes)
    lines = [("CPUs", _ORANGE, [moment.cpu for moment in moments])]
    if has_gpus:
        lines.append(("GPUs", _BLUE, [moment.gpu for moment in moments]))
    for place, (name, colour, parts) in enumerate(lines):
        path: list[str] = []
        for moment, part in zip(moments, parts, strict=True):
            x, y = axis.x(moment.at), top + height * (1 - min(part, 1.0))
            path.append(f"H{x:.1f}V{y:.1f}" if path else f"M{x:.1f},{y:.1f}")
        marks.append(f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
        marks.append(_text(WIDTH - RIGHT - 60 * place, top - 4, name, anchor="end", colour=colour))
    return marks, height


def _draw_waits(history: History, axis: _Axis, top: float) -> tuple[list[str], int]:
    """For each size class the median wait, and the one that 95 of 100 do not exceed, on a logarithmic scale."""
    height = 160
    by_class: dict[int, list[float]] = defaultdict(list)
    started: set[str] = set()
    for span in sorted(history.spans, key=lambda span: span.started_at):
        if span.work.id not in started:
            started.add(span.work.id)
            by_class[(_size(span) - 1).bit_length()].append(span.started_at - span.work.submitted_at)
    longest = max(max(waits) for waits in by_class.values())
    decades = max(1, len(str(int(longest))))
    marks = list(_scale(top, height, [f"{10**decade:g} s" for decade in range(decades, -1, -1)]))
    width = PLOT / (len(by_class) * 3)
    for place, size_class in enumerate(sorted(by_class)):
        waits = sorted(by_class[size_class])
        x = LEFT + width * (3 * place + 0.5)
        for shift, percent, colour in ((0, 50, _BLUE), (1, 95, _ORANGE)):
            tall = height * log10(max(percentile(waits, percent), 1.0)) / decades
            marks.append(_bar(x + shift * width, top + height - tall, width * 0.9, tall, colour))
        first, last = 2 ** (size_class - 1) + 1 if size_class else 1, 2**size_class
        named = str(last) if first >= last else f"{first} to {last}"
        marks.append(_text(x + width, top + height + 16, named, anchor="middle"))
    marks.append(_text(WIDTH - RIGHT, top - 4, "95 %", anchor="end", colour=_ORANGE))
    marks.append(_text(WIDTH - RIGHT - 60, top - 4, "median", anchor="end", colour=_BLUE))
    return marks, height


def _draw_nodes(history: History, axis: _Axis, top: float) -> tuple[list[str], int]:
    """A Gantt chart: a row a node, a bar a stay, as tall as the part of the node it holds."""
    nodes = history.scenario.nodes[:MOST_ROWS]
    each = 300 if len(nodes) == 1 else max(12, min(40, 600 // len(nodes)))
    height = each * len(nodes)
    row_of = {node.id: row for row, node in enumerate(nodes)}
    marks = list(axis.ticks(top, height))
    for node, row in zip(nodes, row_of.values(), strict=True):
        marks.append(_line(LEFT, top + row * each, WIDTH - RIGHT, top + row * each, _PALE))
        marks.append(_text(LEFT - 6, top + row * each + min(each, 14) - 2, node.name[:14], anchor="end", size=10))
    room = {node.id: sum(node.gpu_milli_free) or node.cpu_milli for node in nodes}
    with_gpus = {node.id for node in nodes if any(node.gpu_milli_free)}
    taken: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for span in sorted(history.spans, key=lambda span: span.started_at)[:MOST_BARS]:
        for node_id, milli in sorted(_held(span, with_gpus).items()):
            if node_id in row_of and room[node_id]:
                part = min(milli / room[node_id], 1.0)
                low = _free_strip(taken[node_id], span, part)
                y = top + each * (row_of[node_id] + low)
                x = axis.x(span.started_at)
                width = max(axis.x(span.ended_at) - x, 0.3)
                marks.append(_bar(x, y, width, max(each * part, 0.5), _colour(span.work.owner or span.work.id)))
    if len(history.scenario.nodes) > MOST_ROWS:
        marks.append(_text(LEFT, top + height + 34, f"the first {MOST_ROWS} of {len(history.scenario.nodes)} nodes"))
    return marks, height


def _free_strip(taken: list[tuple[float, float, float]], span: Span, part: float) -> float:
    """Return the lowest place, from 0 to 1, of a node's row where a bar covers no other that still lasts."""
    taken[:] = [strip for strip in taken if strip[2] > span.started_at]
    low = 0.0
    for begin, end, _ in sorted(taken):
        if begin - low >= part - 1e-9:
            break
        low = max(low, end)
    low = min(low, 1.0 - part)  # what is in pieces is drawn over others rather than outside
    taken.append((low, low + part, span.ended_at))
    return low


def _held(span: Span, with_gpus: set[str]) -> dict[str, int]:
    held: dict[str, int] = defaultdict(int)
    for replica in span.replicas:
        request = span.work.job_class.roles[replica.role].request
        held[replica.node_id] += request.gpu_milli if replica.node_id in with_gpus else request.cpu_milli
    return held


def _size(span: Span) -> int:
    """How many GPUs, or CPUs, a job asks for."""
    roles = span.work.job_class.roles
    milli = sum(role.request.gpu_milli * role.least for role in roles)
    milli = milli or sum(role.request.cpu_milli * role.least for role in roles)
    return max(-(-milli // WHOLE), 1)


def _thin(moments: Sequence[Moment]) -> Sequence[Moment]:
    """Where there are more moments than points to draw, take the means over each point's time."""
    if len(moments) <= PLOT:
        return moments
    begin, width_s = moments[0].at, (moments[-1].at - moments[0].at) / PLOT
    sums = [[0.0, 0.0] for _ in range(PLOT)]
    for one, after in pairwise(moments):
        last = min(int((after.at - begin) / width_s), PLOT - 1)
        for point in range(min(int((one.at - begin) / width_s), last), last + 1):
            since, until = begin + point * width_s, begin + (point + 1) * width_s
            covered_s = max(min(after.at, until) - max(one.at, since), 0.0)
            sums[point][0] += one.cpu * covered_s
            sums[point][1] += one.gpu * covered_s
    return [Moment(begin + point * width_s, cpu / width_s, gpu / width_s, 0.0) for point, (cpu, gpu) in enumerate(sums)]


def _scale(top: float, height: float, names: Sequence[str]) -> Iterable[str]:
    for place, name in enumerate(names):
        y = top + height * place / (len(names) - 1)
        yield _line(LEFT, y, WIDTH - RIGHT, y, _PALE)
        yield _text(LEFT - 6, y + 4, name, anchor="end")


def _colour(owner: str) -> str:
    return f"hsl({crc32(owner.encode()) % 360},55%,60%)"


def _bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{colour}"/>'


def _line(x: float, y: float, to_x: float, to_y: float, colour: str) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = _INK) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}"'
    return f"<text {place}>{escape(text)}</text>"
