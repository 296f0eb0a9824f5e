import numpy as np
from subquad.layers import AttentionConfig, Mamba2Config, SwiGLUConfig

from . import attention, mamba, mamba2
from .common import exact_gelu, rms, silu

NOISE = 0.1  # with 0.2, each of the seven matrices in a row would double what bfloat16 rounds

SWITCHED = {
    "mixer": Mamba2Config(head_dim=16, state_dim=8),
    "attention": AttentionConfig(head_dim=16, kv_heads=2, out_bias=True),
    "mlp": SwiGLUConfig(hidden=40),
}


def definition(c, p, x):
    block = p.shared
    y = attention.definition(c.attention, block.attention, rms(np.append(x, x, axis=1), block.norm.scale))
    gate, value = np.split(rms(y, block.mlp_norm.scale) @ block.mlp.up.kernel, 2, axis=1)
    act = silu if isinstance(c.mlp, SwiGLUConfig) else exact_gelu
    said = (act(gate) * value) @ block.mlp.down.kernel
    mixer = mamba2 if isinstance(c.mixer, Mamba2Config) else mamba
    return mixer.definition(c.mixer, p.mixer, rms(x + said @ p.linear.kernel, p.norm.scale))
