"""A program's state as files: numbers, text, arrays and tensors in mappings and lists, and nothing that runs code.

The shape goes to JSON; arrays and tensors beside it, as safetensors where that is installed, else as NumPy's own format
without objects. What can't be kept that way is refused by name, never pickled.
"""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

SHAPE, TENSORS, ARRAYS = "state.json", "tensors.safetensors", "arrays.npz"
_PLAIN = (str, int, float, bool, type(None))


def write_state(folder: Path, state: Any) -> None:
    """Write `state` into `folder`. Raises TypeError that names what in it can't be kept."""
    found: dict[str, Any] = {}
    shape = _shape(state, "state", found)
    torch = {name: value for name, value in found.items() if _is_tensor(value)}
    arrays = {name: value for name, value in found.items() if name not in torch}
    if torch:
        saver = _need("safetensors.torch", "to keep tensors of torch: pip install safetensors")
        saver.save_file({name: value.detach().contiguous().clone() for name, value in torch.items()}, folder / TENSORS)
    if arrays:
        numpy = _need("numpy", "to keep arrays")
        with (folder / ARRAYS).open("wb") as file:
            numpy.savez(file, **arrays)
    (folder / SHAPE).write_text(json.dumps(shape, allow_nan=True), encoding="utf-8")


def read_state(folder: Path) -> Any:
    """What `write_state` wrote. Raises FileNotFoundError where it wrote nothing there, ValueError where that is broken."""
    shape = json.loads((folder / SHAPE).read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    if (folder / TENSORS).exists():
        found |= _need("safetensors.torch", "to read tensors: pip install safetensors").load_file(folder / TENSORS)
    if (folder / ARRAYS).exists():
        with _need("numpy", "to read arrays").load(folder / ARRAYS, allow_pickle=False) as stored:
            found |= {name: stored[name] for name in stored.files}
    return _value(shape, found)


def _shape(value: Any, path: str, found: dict[str, Any]) -> Any:
    """JSON in which every list and mapping says what it is, so that nothing in a state can be taken for a sign of ours."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, dict):
        return {"map": [[_key(key, path), _shape(each, f"{path}[{key!r}]", found)] for key, each in value.items()]}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_shape(each, f"{path}[{number}]", found) for number, each in enumerate(value)]}
    if _is_tensor(value) or _is_array(value):
        name = f"a{len(found)}"
        found[name] = value
        return {"scalar" if not _is_tensor(value) and not hasattr(value, "__len__") else "array": name}
    raise TypeError(
        f"{path} is a {type(value).__name__}: a state is made of mappings, lists, numbers, text, arrays and tensors"
    )


def _key(key: Any, path: str) -> Any:
    if type(key) not in _PLAIN:
        raise TypeError(f"{path} has a key that is a {type(key).__name__}: keys are text or numbers")
    return key


def _value(shape: Any, found: dict[str, Any]) -> Any:
    if not isinstance(shape, dict):
        return shape
    ((kind, inner),) = shape.items()
    if kind == "map":
        return {key: _value(each, found) for key, each in inner}
    if kind in ("list", "tuple"):
        values = [_value(each, found) for each in inner]
        return tuple(values) if kind == "tuple" else values
    return found[inner][()] if kind == "scalar" else found[inner]


def _is_tensor(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach")


def _is_array(value: Any) -> bool:
    is_numpy = type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "dtype")
    return is_numpy and not value.dtype.hasobject


def _need(module: str, why: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{module} is needed {why}", name=error.name) from error
