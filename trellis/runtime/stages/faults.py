"""What goes wrong in a stage, said in one line."""

from dataclasses import dataclass


class StageFailed(Exception):
    """The stage ends without a result; the message says why and what to do about it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a configuration: where (a path such as `from.url`), and what to do about it."""

    path: str
    message: str


class StageErrors(ValueError):
    """A configuration that can't be used; `errors` holds every fault at once."""

    def __init__(self, errors: list[Fault]) -> None:
        super().__init__("; ".join(f"{fault.path or 'the configuration'}: {fault.message}" for fault in errors))
        self.errors = errors
