"""Near to other jobs, or apart from them: how many replicas that a rule looks for are where."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from scheduler.placement.topology import Topology
from scheduler.snapshot import Affinity, JobClass, Labels

CROWDED = 100
"""What a replica that one would rather be apart from (or, near to) counts: as much as the strongest preference."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one class heeds of others in its project: an affinity of its own, or (`mutual`) others' wish to be apart.

    Who must be apart from whom is kept whichever of them comes first.
    """

    project_id: str
    labels: Labels
    level: str
    apart: bool
    required: bool
    own: bool = False
    mutual: bool = False

    def heeds(self, job_class: JobClass) -> bool:
        """Tell whether replicas of a class are among those that this rule looks for."""
        if job_class.project_id != self.project_id:
            return False
        if not self.mutual:
            return _carries(job_class, self.labels)
        return any(
            one.apart and one.required and one.level == self.level and set(one.labels) <= set(self.labels)
            for one in job_class.constraints.affinities
        )


@dataclass(slots=True)
class Watch:
    """How many replicas that `rule` looks for are in each domain of its level, kept up to date.

    `changed` are the domains whose number has changed, in order; None stands for all of them.
    """

    rule: Rule
    counts: dict[int, int] = field(default_factory=dict)
    total: int = 0
    changed: list[int | None] = field(default_factory=list)

    def note(self, domain: int, replicas: int) -> bool:
        """Count replicas that came to a domain (or left it: less than 0); tell whether that opens it to somebody."""
        before = self.counts.get(domain, 0)
        count = before + replicas
        if count:
            self.counts[domain] = count
        else:
            del self.counts[domain]
        self.changed.append(domain)
        had_any, self.total = self.total > 0, self.total + replicas
        # A rule that its own class fulfils binds from the first replica on.
        if self.rule.own and not self.rule.apart and had_any != (self.total > 0):
            self.changed.append(None)
        return self.rule.required and not self.rule.apart and not before

    def refuses(self, domain: int) -> bool:
        """Tell whether the rule keeps a replica from a domain."""
        if not self.rule.required:
            return False
        if self.rule.apart:
            return self.counts.get(domain, 0) > 0
        return self.counts.get(domain, 0) == 0 and not (self.rule.own and self.total == 0)

    def points(self, domain: int) -> int:
        """Return how much speaks against a domain where the rule is a wish."""
        if self.rule.required:
            return 0
        count = self.counts.get(domain, 0)
        return CROWDED * count if self.rule.apart else -CROWDED * (count > 0)


def levels_apart(one: JobClass, other: JobClass) -> set[str]:
    """Return the levels in whose domains no replica of one class may be together with one of the other."""
    if one.project_id != other.project_id:
        return set()
    pairs = ((one, other), (other, one))
    return {rule.level for mine, theirs in pairs for rule in _repelling(mine) if _carries(theirs, rule.labels)}


class Presence:
    """Which classes with labels, or with a wish to be apart, have how many replicas on which node."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.version = 0
        """Grows when a class comes or goes that wants others to keep apart: who heeds whom is then to be asked anew."""
        self._present: dict[_Kind, _Present] = {}
        self._watches: dict[Rule, Watch] = {}

    def note(self, number: int, job_class: JobClass, replicas: int) -> bool:
        """Count replicas that came to node `number` (or left it: less than 0); tell whether that opens it to others.

        So it does where somebody must be near them.
        """
        kind = (job_class.project_id, job_class.labels, job_class.constraints.affinities)
        if not (kind[1] or kind[2]):
            return False
        present = self._present.get(kind)
        if present is None:
            watches = [watch for rule, watch in self._watches.items() if rule.heeds(job_class)]
            present = self._present[kind] = _Present(job_class, watches)
            self.version += _repels(job_class)
        present.add(number, replicas)
        opened = [watch.note(self.topology.domain(watch.rule.level, number), replicas) for watch in present.watches]
        if not present.counts:
            del self._present[kind]
            self.version += _repels(job_class)
        return any(opened)

    def watches(self, job_class: JobClass) -> tuple[Watch, ...]:
        """Return what placing a replica of this class has to heed."""
        return tuple(map(self._watch, self._rules(job_class)))

    def forget_watches(self) -> None:
        """Let go of the watches: whoever needs one asks for it again."""
        self._watches.clear()
        for present in self._present.values():
            present.watches.clear()

    def _rules(self, job_class: JobClass) -> Iterator[Rule]:
        for one in job_class.constraints.affinities:
            own = _carries(job_class, one.labels)
            yield Rule(job_class.project_id, one.labels, one.level, one.apart, one.required, own)
        if job_class.labels:
            for level in self._levels_of_repellers(job_class):
                yield Rule(job_class.project_id, job_class.labels, level, apart=True, required=True, mutual=True)

    def _levels_of_repellers(self, job_class: JobClass) -> list[str]:
        found = {
            one.level
            for present in self._present.values()
            if present.job_class.project_id == job_class.project_id
            for one in _repelling(present.job_class)
            if set(one.labels) <= set(job_class.labels)
        }
        return sorted(found)

    def _watch(self, rule: Rule) -> Watch:
        watch = self._watches.get(rule)
        if watch is None:
            watch = self._watches[rule] = Watch(rule)
            for present in self._present.values():
                if rule.heeds(present.job_class):
                    present.watches.append(watch)
                    for number, replicas in present.counts.items():
                        watch.note(self.topology.domain(rule.level, number), replicas)
        return watch


_Kind = tuple[str, Labels, tuple[Affinity, ...]]


@dataclass(slots=True)
class _Present:
    """Replicas by node of all that look alike to every rule; `job_class` is one of their classes."""

    job_class: JobClass
    watches: list[Watch]
    counts: dict[int, int] = field(default_factory=dict)

    def add(self, number: int, replicas: int) -> None:
        count = self.counts.get(number, 0) + replicas
        if count:
            self.counts[number] = count
        else:
            del self.counts[number]


def _carries(job_class: JobClass, labels: Labels) -> bool:
    return set(labels) <= set(job_class.labels)


def _repelling(job_class: JobClass) -> list[Affinity]:
    return [one for one in job_class.constraints.affinities if one.apart and one.required]


def _repels(job_class: JobClass) -> bool:
    return bool(_repelling(job_class))
