"""What the kernels of the delta rule have in common before they are launched, on whatever device."""

OUTPUTS = ("B T H V", "B H K V")


def axes(v, beta, g, *, erase_key, **_) -> dict[str, str]:
    """The axes of the arrays; none where a pair is among them, which then runs as it is, whatever the mesh."""
    if isinstance(beta, tuple):
        return {}
    of_heads = lambda x: "B T H K" if x.shape[2] == v.shape[2] else "B T Hk K"  # noqa: E731
    found = {"q": "B T Hk K", "k": "B T Hk K", "v": "B T H V", "beta": "B T H"}
    found |= {"initial_state": "B H K V", "segment_ids": "B T"}
    if g is not None:
        found["g"] = "B T H" if g.ndim == 3 else of_heads(g)
    return found if erase_key is None else found | {"erase_key": of_heads(erase_key)}
