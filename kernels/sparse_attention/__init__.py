"""Sparse attention: softmax over the keys that a mask names, without a T x T array.

    y_i = sum_j p_ij v_j        p_ij = exp(scale q_i . k_j) / sum_j' exp(scale q_i . k_j')

where j, j' run over what token i sees. The masks are in ``masks``: ``Window``, ``Dilated``, ``Strided``, ``BigBird``,
which are known when the program is traced, and ``Blocks``, whose lists are data. All of them are causal; attention that
sees the future is not here.

This is attention, so heads are grouped as there: q has H heads, k and v have Hk, and query head j reads key head
``j // (H / Hk)``. There is no state: k and v may be longer than q, whose tokens are the last of theirs, and so a call
goes on where an earlier one stopped.
"""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .. import checks, dispatch
from .masks import BigBird, Blocks, Dilated, Mask, Strided, Window

__all__ = ["BigBird", "Blocks", "Dilated", "Mask", "Strided", "Window", "sparse_attention"]

OP = "sparse_attention"


def prepare(q, k, v, *, mask, scale=None, segment_ids=None) -> dict[str, Any]:
    """Checks the arguments of ``sparse_attention`` and fills its defaults."""
    sizes: dict[str, int] = {}
    checks.expect(OP, "q", q, "B T H K", sizes)
    checks.expect(OP, "k", k, "B S Hk K", sizes)
    checks.expect(OP, "v", v, "B S Hk V", sizes)
    T, S, H, Hk = (sizes[axis] for axis in ("T", "S", "H", "Hk"))
    if S < T:
        raise ValueError(f"{OP}: k has {S} tokens; expected at least the {T} tokens of q, which are the last of them")
    if H % Hk:
        raise ValueError(f"{OP}: q has {H} heads; expected a multiple of the {Hk} heads of k and v")
    if segment_ids is not None:
        checks.expect_ids(OP, segment_ids, sizes, "B S")
    if not isinstance(mask, Mask):
        raise ValueError(f"{OP}: mask is a {type(mask).__name__}; expected {' or '.join(m.__name__ for m in MASKS)}")
    name = type(mask).__name__
    if isinstance(mask, Blocks):
        sizes |= {"N": -(-T // mask.query_block), "1": 1}
        start = jnp.asarray(mask.start)
        mask = replace(mask, start=start)
        checks.expect(OP, "Blocks.start", start, "B N 1|Hk|H n", sizes)
        most = -(-S // mask.size)
        if sizes["n"] > most:
            raise ValueError(f"{OP}: Blocks.start lists {sizes['n']} blocks; expected at most the {most} of {S} keys")
    elif mask.sinks > S:
        raise ValueError(f"{OP}: {name}.sinks={mask.sinks}; expected at most the {S} keys")
    if isinstance(mask, Dilated) and isinstance(mask.dilation, tuple) and len(mask.dilation) != H:
        raise ValueError(
            f"{OP}: {name}.dilation has {len(mask.dilation)} entries; expected one for each of the {H} heads"
        )
    return {
        "q": q, "k": k, "v": v, "mask": mask,
        "scale": sizes["K"] ** -0.5 if scale is None else scale, "segment_ids": segment_ids,
    }  # fmt: skip


MASKS = Window, Dilated, Strided, BigBird, Blocks


def sparse_attention(
    q: Float[Array, "B T H K"],
    k: Float[Array, "B S Hk K"],
    v: Float[Array, "B S Hk V"],
    *,
    mask: Mask,
    scale: float | Float[Array, ""] | None = None,
    segment_ids: Int[Array, "B S"] | None = None,
    impl: str = "auto",
) -> Float[Array, "B T H V"]:
    """Attention over what ``mask`` names: ``y_i = sum_j softmax_j(scale q_i . k_j) v_j``.

    Args:
      q: queries ``[B, T, H, K]``: the last T of the S tokens.
      k: keys ``[B, S, Hk, K]``, S >= T; query head j reads key head ``j // (H / Hk)``.
      v: values ``[B, S, Hk, V]``.
      mask: what a token sees: a ``Window``, ``Dilated``, ``Strided``, ``BigBird`` or ``Blocks``.
      scale: factor on q; None means ``K ** -0.5``. Where it is an array, whose gradient is a small sum of large terms,
        TPU kernels compute in float32, four to five times as long as in bfloat16; a number costs nothing.
      segment_ids: packed documents, ``[B, S]``: tokens of different documents do not see each other, positions (of
        sinks, of blocks) count from each document's start, and a negative id is padding, which takes no position.
      impl: ``"auto"``, ``"pallas_tpu"``, ``"pallas_gpu"``, ``"xla"`` or ``"reference"``.

    Returns:
      The outputs ``[B, T, H, V]`` in v's dtype: 0 at padding, and where nothing is seen. There is no state.

    Raises:
      ValueError: an argument has the wrong rank or width, the mask does not fit it, or the named implementation cannot
        run this.

    Source: Child, Gray, Radford & Sutskever (2019), Sparse Transformers, arXiv 1904.10509; the softmax over blocks is
    Dao et al. (2022), FlashAttention, arXiv 2205.14135.
    """
    return dispatch.call(OP, impl, **prepare(q, k, v, mask=mask, scale=scale, segment_ids=segment_ids))
