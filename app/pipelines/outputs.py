"""What stages make: the artifacts of their jobs, named by a digest, and the one of them that is their result."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.core.uow import UnitOfWork
from app.pipelines.definition import LARGEST_RESULT, RESULT, digest_of
from app.storage.models import Artifact
from trellis.stores.base import Store


@dataclass(frozen=True, slots=True)
class Told:
    """What a stage told as its result, or what is wrong with it."""

    value: Any = None
    fault: str = ""


def digests(uow: UnitOfWork, job_ids: Sequence[UUID]) -> dict[UUID, str]:
    """A digest of each job's artifacts: the same for the same files of the same names."""
    found: dict[UUID, list[tuple[str, str]]] = {job_id: [] for job_id in job_ids}
    rows = select(Artifact.job_id, Artifact.name, Artifact.digest).where(Artifact.job_id.in_(job_ids))
    for job_id, name, digest in uow.execute(rows):
        found[job_id].append((name, digest))
    return {job_id: digest_of(sorted(files)) for job_id, files in found.items()}


def join(parts: Iterable[str]) -> str:
    """One digest for many, in whatever order they come."""
    return digest_of(sorted(parts))


def result_keys(uow: UnitOfWork, job_ids: Sequence[UUID]) -> dict[UUID, tuple[str, int]]:
    """Where the store holds the results of these jobs, and how large they are."""
    rows = select(Artifact.job_id, Artifact.key, Artifact.size_bytes).where(
        Artifact.job_id.in_(job_ids), Artifact.name == RESULT
    )
    return {job_id: (key, size) for job_id, key, size in uow.execute(rows)}


def read_result(store: Store, found: tuple[str, int] | None) -> Told:
    """A stage's result. Outside of any transaction: the store may be far away."""
    if found is None:
        return Told(fault=f"it left no result: others are chosen by it, or mapped over it, so it must save {RESULT}")
    key, size_bytes = found
    if size_bytes > LARGEST_RESULT:
        return Told(fault=f"its result is larger than {LARGEST_RESULT} bytes: save what is large as another file")
    try:
        return Told(json.loads(b"".join(store.read(key)).decode("utf-8")))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        return Told(fault=f"its {RESULT} is no JSON")
    except FileNotFoundError:
        return Told(fault=f"its {RESULT} is no longer in the store")
