"""What a stage of a pipeline does inside its job: `python -m trellis.runtime.stages SPEC.json`.

`definitions` needs the standard library alone; the rest needs the extra `data`.
"""
