"""Compiles the GPU kernels for an H100 that is elsewhere, down to machine code, and says what each takes of the card.

    python -m venv .bench && .bench/bin/pip install .
    .bench/bin/pip install --no-deps jax-cuda13-pjrt==0.12.0.1 jax-cuda13-plugin==0.12.0.1   # the version of jax
    .bench/bin/pip install nvidia-cuda-nvcc nvidia-nvvm                                      # ptxas, unless PATH has it
    JAX_PLATFORMS=cpu .bench/bin/python -m subquad.experiments.bench.gpu_compile 128 128

Where there is neither a GPU nor its driver: XLA compiles for a described target, and Mosaic GPU leaves what ptxas said.
Forward and backward of a head of bfloat16 with the given K and V. About 30 s an op on one core.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from ... import kernels

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84978434048
  cuda_compute_capability { major: 9 minor: 0 }
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } device_description_str: "NVIDIA H100 80GB HBM3"
"""
T = 4096  # long enough to be split over blocks: then the kernels of the first pass are compiled too


def arguments(K: int, V: int) -> dict[str, dict]:
    """What each op is compiled for, by name."""
    shape = lambda *axes, dtype=jnp.bfloat16: jax.ShapeDtypeStruct((1, T, 1, *axes), dtype)  # noqa: E731
    qkv = {"q": shape(K), "k": shape(K), "v": shape(V)}
    delta = {**qkv, "beta": shape()}
    gates = {"scalar": shape(dtype=jnp.float32), "vector": shape(K, dtype=jnp.float32)}
    ops = {"gla": qkv, "delta_rule": delta}
    named = {f"{op} {gate}": given | {"g": g} for op, given in ops.items() for gate, g in gates.items()}
    named |= {"dplr": {**qkv, "a": shape(K), "b": shape(K), "g": gates["vector"]}}
    lists = kernels.Blocks(jax.ShapeDtypeStruct((1, T // 64, 1, 3), jnp.int32), 64, 64)
    masks = {"window": kernels.Window(100), "lists": lists}
    named |= {f"sparse_attention {name}": qkv | {"mask": mask} for name, mask in masks.items()}
    if max(K, V) <= 128:
        for what, B, H in (("a sequence", 1, 1), ("8", 9, 15)):
            given = {"gates": (B, T, H, 4, K), "r": (H, 4, K, K)}
            named[f"slstm {what}"] = {name: jax.ShapeDtypeStruct(x, jnp.bfloat16) for name, x in given.items()}
    return named


def compile_for(device, op: str, given: dict) -> None:
    """Compiles the op with its gradients."""

    def both(given):
        y, vjp = jax.vjp(lambda given: getattr(kernels, op)(**given, impl="pallas_gpu"), given)
        return y, vjp(y)

    place = jax.sharding.SingleDeviceSharding(device)
    abstract = jax.sharding.AbstractDevice(device.device_kind, 132, "cuda")
    types = (jax.sharding.AxisType.Auto,)
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((1,), ("x",), types, abstract_device=abstract)):
        traced = jax.jit(both, in_shardings=place, out_shardings=place).trace(given)
        lowered = traced.lower(lowering_platforms=("cuda",))
    lowered.compile()


def main() -> None:
    """Prints a line for each kernel."""
    K, V = (int(width) for width in sys.argv[1:]) if sys.argv[1:] else (128, 128)
    folder = Path(tempfile.mkdtemp())
    os.environ |= {"MOSAIC_GPU_DUMP_PTXAS": "1", "MOSAIC_GPU_DUMP_TO": str(folder)}
    (device,) = topologies.get_topology_desc("", "cuda", target_config=H100, topology="1x1x1").devices
    print(f"for {device.device_kind}, K {K}, V {V}")
    for name, given in arguments(K, V).items():
        before = set(folder.glob("*.ptxas"))
        compile_for(device, name.split()[0], given)
        for path in sorted(set(folder.glob("*.ptxas")) - before):
            said = path.read_text()
            found = [re.search(rf"(\d+) {what}", said) for what in ("registers", "bytes spill stores")]
            registers, spilled = (match[1] if match else "?" for match in found)
            slow = ", products one after the other" if "serialized" in said else ""
            kernel = path.stem.rsplit("_", 1)[0]
            print(f"{name:24} {kernel:24} {registers:>3} registers, {spilled:>4} bytes spilled{slow}", flush=True)


if __name__ == "__main__":
    main()
