"""What kernels are traced for: this machine's devices, or others that a program is compiled for."""

import jax


def kind(platform: str, maker: str) -> str | None:
    """JAX's name for the device, of an abstract mesh or of this machine; None if it is no ``platform``.

    Args:
      platform: of ``jax.default_backend()``.
      maker: what names of such devices begin with.
    """
    if abstract := jax.sharding.get_abstract_mesh().abstract_device:
        return abstract.device_kind if abstract.device_kind.startswith(maker) else None
    return jax.devices()[0].device_kind if jax.default_backend() == platform else None


def cores() -> int:
    """How many cores (multiprocessors) the device has that is traced for: of an abstract mesh or of this machine."""
    if abstract := jax.sharding.get_abstract_mesh().abstract_device:
        return abstract.num_cores or 1
    return getattr(jax.devices()[0], "core_count", 1)
