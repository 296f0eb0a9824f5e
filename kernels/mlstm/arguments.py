"""What the kernels of mLSTM have in common: which axes its arrays have."""

from typing import Any

OUTPUTS = ("B T H V", ("B H K V", "B H K", "B H"))


def axes(**_) -> dict[str, Any]:
    """The axes of the arrays."""
    named = {"q": "B T Hk K", "k": "B T Hk K", "v": "B T H V", "i": "B T H", "f": "B T H"}
    return named | {"initial_state": OUTPUTS[1], "segment_ids": "B T"}
