from dataclasses import replace

from scheduler.snapshot import Holding, PendingJob, Reservation
from scheduler.suppositions import held_on, with_twins, without_nodes
from tests.support.clusters import GIB, NOW, a_holding, a_job, a_node, a_running, a_snapshot

GPUS = tuple((device, 1000) for device in range(2))


def test_twins_are_empty_and_ready_whatever_their_model_is() -> None:
    model = replace(a_node("a", gpus=2), ready=False, labels=(("disk", "ssd"),), caches=frozenset({"x"}), pool_id="p")
    cut = replace(a_node("b", gpus=2), partitioned=(1,), gpu_memory_bytes=80 * GIB)
    running = [a_running("r", a_holding("a", gpus=GPUS))]
    snapshot = a_snapshot([model, replace(cut, gpu_milli_free=(1000, 0))], [], running=running)
    grown = with_twins(snapshot, snapshot.nodes[0], 2)
    assert [node.name for node in grown.nodes] == ["a", "b", "a+1", "a+2"]
    assert len({node.id for node in grown.nodes}) == 4
    twin = grown.nodes[2]
    assert (twin.ready, twin.cpu_milli_free, twin.memory_bytes_free, twin.gpu_milli_free) == (
        True, 8000, 32 * GIB, (1000, 1000)
    )  # fmt: skip
    assert (twin.labels, twin.pool_id, twin.caches) == ((("disk", "ssd"),), "p", frozenset())
    assert with_twins(snapshot, snapshot.nodes[1], 1).nodes[-1].gpu_milli_free == (1000, 0)


def test_with_a_node_goes_all_that_is_on_it_and_what_belongs_to_that_elsewhere() -> None:
    gang = a_running("gang", a_holding("a", cpus=2), a_holding("b", cpus=3, gpus=GPUS))
    other, allocation = a_running("other", a_holding("b", cpus=1)), a_running("allocation x", a_holding("a", cpus=1))
    nodes = [a_node("a"), a_node("b", gpus=2)]
    snapshot = a_snapshot(nodes, [a_job("w")], running=[gang, other, allocation])
    claim = Reservation("c", "p", NOW, NOW + 9, (a_holding("a"), a_holding("b")))
    snapshot = replace(snapshot, reservations=(claim,))
    assert [job.id for job in held_on(snapshot, {"id-a"})] == ["gang", "allocation x"]
    left = without_nodes(snapshot, {"id-a"}, {"gang": 5.0})
    assert [job.id for job in left.running] == ["other"]
    assert left.pending == (*snapshot.pending, PendingJob("gang", 5.0, gang.job_class))
    (node,) = left.nodes
    assert (node.cpu_milli_free, node.memory_bytes_free, node.gpu_milli_free) == (7000, 31 * GIB, (1000, 1000))
    assert left.reservations[0].holdings == (Holding("id-b", 1000, GIB, ()),)
