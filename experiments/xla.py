"""What the lab tells XLA before the first array is made."""

import os
from importlib.metadata import entry_points, version
from importlib.util import find_spec
from pathlib import Path

YNN = "--xla_cpu_experimental_ynn_fusion_type"


def sound() -> None:
    """Turns off a CPU fusion of XLA that returns wrong numbers, in this process and those it starts.

    Seen with jaxlib 0.12.0.1 on x86-64: a sum over the last axis that feeds a matrix product, vmapped over four or more
    models, read memory that nobody had written (``tests/test_xla.py``). A choice already in ``XLA_FLAGS`` stands. Flags
    that a release does not know end the process, so that later ones are left alone.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if YNN not in flags and tuple(map(int, version("jaxlib").split(".")[:2])) <= (0, 12):
        os.environ["XLA_FLAGS"] = f"{flags} {YNN}=-reduce".strip()


def quiet() -> None:
    """Keeps libtpu from looking for a TPU, at length and aloud, where it is installed for its compiler alone.

    That is where there is no such device, and no plugin of another kind that JAX should find.
    """
    chips = [*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*")]
    if find_spec("libtpu") and not chips and not entry_points(group="jax_plugins"):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
