"""What the kernels of dplr have in common: which axes its arrays have."""

OUTPUTS = ("B T H V", "B H K V")


def axes(v, **arguments) -> dict[str, str]:
    """The axes of the arrays."""
    keyed = {name: arguments[name] for name in ("q", "k", "a", "b", "g")}
    found = {name: "B T H K" if x.shape[2] == v.shape[2] else "B T Hk K" for name, x in keyed.items()}
    return found | {"v": "B T H V", "initial_state": "B H K V", "segment_ids": "B T"}
