from subquad.layers import AttentionConfig, DeltaNetConfig

from . import attention, deltanet, mamba2

SWITCHED = {"left": DeltaNetConfig(head_dim=16), "right": AttentionConfig(head_dim=16, kv_heads=1)}


def definition(c, p, x):
    left = deltanet if isinstance(c.left, DeltaNetConfig) else mamba2
    return left.definition(c.left, p.left, x) + attention.definition(c.right, p.right, x)
