"""Writing safetensors: equal arrays and metadata give equal bytes, and never half a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxstyle.errors import UserError


def check_name(path: str | os.PathLike[str]) -> Path:
    """The path of a file to write.

    Raises:
        UserError: it does not end in `.safetensors`.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() != ".safetensors":
        raise UserError(f"{path}: expected a name that ends in .safetensors")
    return path


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes a file beside its target and renames it.

    Args:
        path: the file; one that exists is replaced.
        arrays: by name, C-contiguous.
        metadata: text by name, in the order to write it in.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    data = to_bytes(dict(arrays))
    # The library writes metadata in an order that changes from run to run, hence this one.
    size = 8 + int.from_bytes(data[:8], "little")
    header = {"__metadata__": dict(metadata), **json.loads(data[8:size])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(len(text).to_bytes(8, "little") + text + data[size:])
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
