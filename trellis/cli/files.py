"""YAML files that a command sends on."""

from pathlib import Path
from typing import Any

import yaml

from trellis.errors import Field, Invalid

LARGEST_BYTES = 4 << 20


def read_yaml(option: str, path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; what it says is the server's to judge. Raises Invalid."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise Invalid(Field(f"--{option}", f"{path} is larger than {LARGEST_BYTES >> 20} MiB"))
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise Invalid(Field(f"--{option}", f"{path} can't be read: {error.strerror}")) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Invalid(Field(f"--{option}", f"{path} is not YAML: {str(error).splitlines()[0]}")) from error
    if not isinstance(content, dict):
        raise Invalid(Field(f"--{option}", f"{path} must hold a mapping"))
    return content
