"""What the kernels of the delta rule have in common before they are launched, on whatever device."""

from typing import Any

OUTPUTS = ("B T H V", "B H K V")


def axes(v, beta, g, *, erase_key, **_) -> dict[str, Any]:
    """The axes of the arrays."""
    of_heads = lambda x: "B T H K" if x.shape[2] == v.shape[2] else "B T Hk K"  # noqa: E731
    found: dict[str, Any] = {"q": "B T Hk K", "k": "B T Hk K", "v": "B T H V"}
    found["beta"] = (of_heads(beta[0]), "B T H V") if isinstance(beta, tuple) else "B T H"
    found |= {"initial_state": "B H K V", "segment_ids": "B T"}
    if g is not None:
        found["g"] = "B T H" if g.ndim == 3 else of_heads(g)
    return found if erase_key is None else found | {"erase_key": of_heads(erase_key)}
