"""Which stage of which run this process is, where it is one."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class StageContext:
    """The run, and what it says. `item` is the value of a `mapped` stage; `inputs` are the jobs whose artifacts are its inputs."""

    pipeline: str = ""
    run_id: str = ""
    stage: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    fire_at: str | None = None
    mapped: bool = False
    index: int = 0
    item: Any = None


def find_stage() -> StageContext:
    """The stage that this process is; an empty one outside of a pipeline, so that a script runs anywhere."""
    env = os.environ
    if "TRELLIS_RUN_ID" not in env:
        return StageContext()
    return StageContext(
        pipeline=env["TRELLIS_PIPELINE"],
        run_id=env["TRELLIS_RUN_ID"],
        stage=env["TRELLIS_STAGE"],
        parameters=json.loads(env["TRELLIS_PARAMETERS"]),
        inputs=json.loads(env["TRELLIS_INPUTS"]),
        fire_at=env.get("TRELLIS_FIRE_AT"),
        mapped="TRELLIS_MAP_INDEX" in env,
        index=int(env.get("TRELLIS_MAP_INDEX", "0")),
        item=json.loads(env.get("TRELLIS_MAP_VALUE", "null")),
    )
