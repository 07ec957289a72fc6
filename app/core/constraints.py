"""Where the replicas of a job may run, and where they had better: in a user's words, and as they are kept."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from trellis.vocabulary import Isolation, Strategy, TermOperator
from trellis.wire import pack, unpack

NODE = "node"
"""The narrowest level of every topology: each node is a domain of its own."""

KNOWN_TO_SCHEDULER = "placement/"
"""Labels of jobs that begin so are what affinities may speak of. Were it all labels, each that is unique to a job would
make a class of its own of it, and what is decided once for thousands of jobs would be decided thousands of times."""

_TOLERATION = re.compile(r"([^=]*)(?:=(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Term:
    """A condition on one label of a node: its own labels, `name`, `gpu_model`, and the levels of the topology."""

    label: str
    operator: TermOperator = TermOperator.IN
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preference:
    """A condition that is worth `weight` (1 to 100) where it holds."""

    label: str
    operator: TermOperator = TermOperator.IN
    values: tuple[str, ...] = ()
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Affinity:
    """Replicas of the project's jobs that carry all of `labels`, to be near to or apart from: on a node, in a domain."""

    labels: dict[str, str]
    level: str = NODE
    required: bool = True


@dataclass(frozen=True, slots=True)
class Topology:
    """All replicas in one domain of `level`: if not `required`, in as few and narrow ones as there can be."""

    level: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Constraints:
    """`labels` are those a node must have, levels of the topology included, as terms of `selector` with one value are.

    `pool` is a name, or the pool's id once it is kept for the scheduler. `tolerates` are keys of taints, or `key=value`.
    `container` is not for users to say: a job that names an image needs nodes that run containers.
    """

    exclusive: bool = False
    pool: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    tolerates: tuple[str, ...] = ()
    selector: tuple[Term, ...] = ()
    prefers: tuple[Preference, ...] = ()
    affinity: tuple[Affinity, ...] = ()
    anti_affinity: tuple[Affinity, ...] = ()
    topology: Topology = field(default_factory=Topology)
    strategy: Strategy = Strategy.FIT
    spot: bool = True
    min_isolation: Isolation = Isolation.BASIC
    data: tuple[str, ...] = ()
    container: bool = False

    def stored(self) -> dict[str, Any]:
        """As JSON, without what is as it is by default."""
        usual = Constraints()
        return {f.name: pack(said) for f in fields(self) if (said := getattr(self, f.name)) != getattr(usual, f.name)}

    @classmethod
    def read(cls, stored: dict[str, Any]) -> Self:
        """What `stored` wrote."""
        return unpack(cls, stored)

    def settled(self, pool_id: str) -> "Constraints":
        """The same said in the one way in which the scheduler hears it: equal constraints become equal values."""
        equals = (Term(label, TermOperator.IN, (value,)) for label, value in self.labels.items())
        terms = (replace(term, values=_distinct(term.values)) for term in self.selector)
        wishes = (replace(wish, values=_distinct(wish.values)) for wish in self.prefers)
        return replace(
            self,
            pool=pool_id,
            labels={},
            tolerates=_distinct(self.tolerates),
            selector=_distinct((*equals, *terms), key=_said),
            prefers=tuple(sorted(wishes, key=lambda wish: (_said(wish), wish.weight))),
            affinity=tuple(sorted(self.affinity, key=_by_labels)),
            anti_affinity=tuple(sorted(self.anti_affinity, key=_by_labels)),
            data=_distinct(self.data),
        )


def toleration(text: str) -> tuple[str, str | None]:
    """The key and the value of `key` or `key=value`; None: any value."""
    match = _TOLERATION.fullmatch(text)
    return (match[1], match[2]) if match else (text, None)


def _said(term: Term | Preference) -> tuple[str, str, tuple[str, ...]]:
    return term.label, term.operator, term.values


def _by_labels(one: Affinity) -> tuple[list[tuple[str, str]], str, bool]:
    return sorted(one.labels.items()), one.level, one.required


def _distinct(values: Iterable[Any], key: Any = None) -> tuple[Any, ...]:
    return tuple(sorted(set(values), key=key))
