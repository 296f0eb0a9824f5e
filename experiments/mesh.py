"""Where arrays live: a mesh of devices that share each batch, and the parameters too when they are sharded."""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from .errors import UserError
from .tree import names

AXIS = "data"
"""The mesh's one axis: the batch is cut along it, and with FSDP the parameters."""
SCANNED = "periods"
"""The part of a leaf's name that says its leading axis stacks the layers of the scanned trunk."""


def make_mesh(devices: int) -> Mesh:
    """A mesh of the first ``devices`` devices. Raises UserError if there are not that many."""
    have = jax.devices()
    if devices > len(have):
        raise UserError(f"devices = {devices}, but this machine has {len(have)} of kind {have[0].device_kind!r}")
    return jax.make_mesh((devices,), (AXIS,), axis_types=(AxisType.Auto,), devices=have[:devices])


def batch_sharding(mesh: Mesh, axis: int) -> NamedSharding:
    """The sharding of arrays whose batch is axis ``axis``."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def state_sharding(state: Any, mesh: Mesh, *, fsdp: bool) -> Any:
    """The sharding of each leaf of a state: its largest axis that divides over the devices, never the scanned one.

    Optimizer moments have the names and shapes of their parameters, so they follow them. Leaves without such an axis
    are replicated, and without ``fsdp`` all are.

    Args:
        state: a tree of arrays or their shapes.
        mesh: the devices.
        fsdp: whether to shard at all.

    Returns:
        The tree of shardings.

    Source: Rajbhandari et al. 2019, arXiv 1910.02054 (ZeRO, stage 3).
    """

    def sharding(name: str, leaf: Any) -> NamedSharding:
        first = 1 if SCANNED in name.split("/") else 0
        axes = [axis for axis in range(first, leaf.ndim) if leaf.shape[axis] and leaf.shape[axis] % mesh.size == 0]
        if not fsdp or mesh.size == 1 or not axes:
            return NamedSharding(mesh, PartitionSpec())
        largest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, AXIS))

    return jax.tree.map(sharding, names(state), state)
