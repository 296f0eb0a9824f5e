"""Counts floating-point operations in a jaxpr, by the convention of ``layers/flops.py``.

Matrix products count 2 a multiply-add wherever they stand. Inside a scan, which is a recurrence when the ops run their
definitions, additions, subtractions and multiplications count too; complex ones count as the real ones they take.
 A scan counts its body as often as it runs.
"""

import math

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

ARITHMETIC = {"add", "add_any", "mul", "sub"}


def count(function, *args) -> float:
    """The operations of ``function(*args)``; the arguments may be ShapeDtypeStructs."""
    return _count(jax.make_jaxpr(function)(*args).jaxpr, in_scan=False)


def _count(jaxpr: Jaxpr, in_scan: bool) -> float:
    total = 0.0
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "dot_general":
            (contract, _), _ = eqn.params["dimension_numbers"]
            terms = math.prod(eqn.invars[0].aval.shape[axis] for axis in contract)
            total += 2.0 * terms * eqn.outvars[0].aval.size
        elif name in ARITHMETIC:
            complex_ = jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.complexfloating)
            real_operations = (6 if name == "mul" else 2) if complex_ else 1
            total += in_scan * real_operations * eqn.outvars[0].aval.size
        elif name in ("while", "cond", "conv_general_dilated"):
            raise NotImplementedError(f"no rule for {name}")
        else:
            times = eqn.params["length"] if name == "scan" else 1
            inner = sum(_count(sub, in_scan or name == "scan") for sub in _jaxprs(eqn.params))
            total += times * inner
    return total


def _jaxprs(params) -> list[Jaxpr]:
    leaves = jax.tree.leaves(list(params.values()), is_leaf=lambda x: isinstance(x, (ClosedJaxpr, Jaxpr)))
    found = [x for x in leaves if isinstance(x, (ClosedJaxpr, Jaxpr))]
    return [x.jaxpr if isinstance(x, ClosedJaxpr) else x for x in found]
