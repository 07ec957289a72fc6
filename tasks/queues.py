"""The queues, by name, and who listens to which."""

CONTROL = "control"  # control workers: everything that follows from events
SCHEDULING = "scheduling"  # control workers: cycles
DIRECT = "direct"  # control workers: what clients beside the broker call


def node_queue(node_id: str) -> str:
    """The one queue a node listens to."""
    return f"node.{node_id}"
