"""What the kernels of linear_scan have in common: which axes its arrays have."""

OUTPUTS = ("B T H", "B H")


def axes(**_) -> dict[str, str]:
    """The axes of the arrays: a channel is a head here."""
    return {"a": "B T H", "x": "B T H", "initial_state": "B H", "segment_ids": "B T"}
