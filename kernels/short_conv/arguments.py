"""What the kernels of the short filter have in common: which axes its arrays have."""

OUTPUTS = ("B T H", "B tail H")


def axes(**_) -> dict[str, str]:
    """The axes of the arrays: a channel is a head here."""
    return {"x": "B T H", "w": "W H", "b": "H", "initial_state": "B tail H", "segment_ids": "B T"}
