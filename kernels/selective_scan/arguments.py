"""What the kernels of the selective scan have in common: which axes its arrays have."""

OUTPUTS = ("B T H", "B H N")


def axes(**_) -> dict[str, str]:
    """The axes of the arrays: a channel is a head here."""
    of = {"x": "B T H", "dt": "B T H", "A": "H N", "B": "B T N", "C": "B T N"}
    return of | {"initial_state": "B H N", "segment_ids": "B T"}
