"""What devices are called."""

import re

_VENDOR = re.compile(r"\b(nvidia|tesla|geforce|quadro|amd|instinct|intel|radeon)\b", re.IGNORECASE)
_TYPE = re.compile(r"\b([A-Z]{1,3}\d{1,4}[A-Z]{0,2})\b")


def gpu_type(model: str) -> str:
    """The short name people ask for: `H100` for "NVIDIA H100 80GB HBM3", `RTX4090` for "NVIDIA GeForce RTX 4090".

    What a user asked for passes through it too, so that `h100` and `H100` are one type.
    """
    bare = _VENDOR.sub(" ", model).upper()
    found = _TYPE.search(bare.replace("-", " "))
    return found[1] if found else "".join(bare.split())[:63]
