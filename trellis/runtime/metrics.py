"""Metric points, one datagram each, to the replica's supervisor."""

import json
import math
import os
import socket
import warnings
from functools import cache
from pathlib import Path

from trellis.runtime.context import find_context

_NAME_LENGTH = 128
_STEP_AT_MOST = 2**53 - 1
_WAIT_S = 1.0


def log_metric(name: str, value: float, step: int | None = None) -> None:
    """Report that `name` is `value`, at `step` of whatever the job counts.

    Outside a job nothing happens, so that a script runs anywhere. At most 1000 points a second are kept of a
    replica; a point that can't be delivered is dropped with a warning: training must not die of it.

    Raises:
        ValueError: `value` is NaN or infinite, `name` is empty, longer than 128 characters or not printable, or
            `step` is beyond 2^53.
        TypeError: `value` is no number, or `step` no integer.
    """
    message = _encode(name, value, step)
    if (here := find_context()) is None:
        return
    try:
        _connect(here.metrics_socket).send(message)
    except OSError as error:
        _connect.cache_clear()
        warnings.warn(f"the metric {name} was dropped: {error}", RuntimeWarning, stacklevel=2)


def _encode(name: object, value: float, step: int | None) -> bytes:
    if not isinstance(name, str) or not 0 < len(name) <= _NAME_LENGTH or not name.isprintable():
        raise ValueError(f"a metric's name has 1 to {_NAME_LENGTH} printable characters: {name!r}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"the metric {name} is {number}: only finite values can be kept")
    if step is not None and (isinstance(step, bool) or not hasattr(step, "__index__")):
        raise TypeError(f"the step of {name} must be an integer, not {type(step).__name__}")
    count = None if step is None else int(step)
    if count is not None and abs(count) > _STEP_AT_MOST:
        raise ValueError(f"the step of {name} is beyond 2^53")
    return json.dumps({"name": name, "value": number, "step": count}).encode()


@cache
def _connect(path: str) -> socket.socket:
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.settimeout(_WAIT_S)
    # The kernel takes 107 bytes; through the directory's descriptor the name is short wherever it lies.
    place = Path(path)
    folder = os.open(place.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        sender.connect(f"/proc/self/fd/{folder}/{place.name}")
    finally:
        os.close(folder)
    return sender
