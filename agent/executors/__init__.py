"""The ways in which a node can run a replica, by name."""

from agent.executors.base import Executor
from agent.executors.container import ContainerExecutor
from agent.executors.process import ProcessExecutor
from trellis.vocabulary import ExecutorKind

EXECUTORS: dict[ExecutorKind, Executor] = {
    ExecutorKind.PROCESS: ProcessExecutor(),
    ExecutorKind.CONTAINER: ContainerExecutor(),
}
