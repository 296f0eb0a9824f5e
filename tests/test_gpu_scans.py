"""More of the GPU kernels of ``gpu_cases``: lowered for an H100, further cases, and what they refuse."""

import jax
import jax.numpy as jnp
import pytest
from gpu_cases import FURTHER, LOWERED
from subquad import kernels
from subquad.kernels.cases import Case
from test_gpu import H100, ON_A_GPU, elsewhere
from test_ops import check, definition, draw, everything


@pytest.mark.parametrize("n", range(len(LOWERED)), ids=lambda n: f"{LOWERED[n][0]}-{n}")
def test_kernels_lower_for_an_h100_that_is_elsewhere(n):
    """Layouts that the card lacks, and blocks that exceed its shared memory, fail here as they would there."""
    op, make, dtype = LOWERED[n]
    case = Case("", make, dtype=dtype)
    given, cotangents = draw(op, case, seed=0)
    with elsewhere(H100):
        traced = jax.jit(everything(op, "pallas_gpu", case)).trace(given, cotangents)
        assert traced.lower(lowering_platforms=("cuda",)).as_text().count("mosaic_gpu") >= 2


@pytest.mark.exhaustive
@pytest.mark.skipif(ON_A_GPU, reason="there all cases of the ops run")
@pytest.mark.parametrize(("op", "n"), [(op, n) for op, cases in FURTHER.items() for n in range(len(cases))])
def test_further_cases_agree_with_the_definition(op, n):
    case = FURTHER[op][n]
    given, cotangents = draw(op, case, seed=0)
    with kernels.interpret_gpu():
        found = jax.block_until_ready(jax.jit(everything(op, "pallas_gpu", case))(given, cotangents))
    check(op, "pallas_gpu", case, found, definition(op, case, given, cotangents))


def test_what_the_kernels_do_not_take_is_refused_in_words():
    x, wide = jnp.zeros((1, 3, 5)), jnp.zeros((1, 3, 1, 257), jnp.bfloat16)
    refusals = {
        "selective_scan: .* N may be at most 32, not 33": (x, x, jnp.zeros((5, 33)), *[jnp.zeros((1, 3, 33))] * 2),
        "linear_scan: .* a and x are float16 and float16": (x.astype("float16"),) * 2,
        "short_conv: .* W may be at most 8, not 9": (x, jnp.zeros((9, 5))),
        "mlstm: .* K and V may be at most 256, not 257": (wide, wide, wide, wide[..., 0], wide[..., 0]),
    }
    with kernels.interpret_gpu():
        for reason, arguments in refusals.items():
            with pytest.raises(ValueError, match=reason):
                getattr(kernels, reason.split(":")[0])(*arguments, impl="pallas_gpu")
