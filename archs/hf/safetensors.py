"""The safetensors format: eight bytes of length, a JSON header of that length, then the tensors' bytes.

Read here rather than by the package of that name, whose NumPy side has no bfloat16. Tensors are memory-mapped, so that
a file is read once, when its parameters are made. Nothing in a file is executed.

Source: github.com/huggingface/safetensors, "Format".
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "BOOL": np.bool_,
}


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of one file, by name.

    Raises:
      ValueError: it is not such a file, is cut short, or holds a type that is not in ``DTYPES``.
    """
    total = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= total - 8:
            raise ValueError(f"{path}: not a safetensors file, or cut short")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    size = total - 8 - length
    data = np.memmap(path, np.uint8, "r", offset=8 + length) if size else np.empty(0, np.uint8)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"{path}: {name} is {entry['dtype']}; choose from {', '.join(DTYPES)}")
        dtype, (start, stop) = np.dtype(DTYPES[entry["dtype"]]), entry["data_offsets"]
        if not 0 <= start <= stop <= size or stop - start != dtype.itemsize * int(np.prod(entry["shape"])):
            raise ValueError(f"{path}: {name} {entry['shape']} does not lie where the header says; is it cut short?")
        tensors[name] = data[start:stop].view(dtype).reshape(entry["shape"])
    return tensors


def read_folder(folder: Path) -> dict[str, np.ndarray]:
    """The tensors of a published folder: of the files that its index names, or of ``model.safetensors``.

    Raises:
      FileNotFoundError: there are no such files.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    for name in names:
        if not (folder / Path(name).name).is_file():
            raise FileNotFoundError(f"there is no {folder / name}; only safetensors are loaded, pickles (.bin) never")
    return {key: tensor for name in names for key, tensor in read(folder / Path(name).name).items()}
