"""Transformers: Llama (and SmolLM2, and many others), Qwen2, Qwen3, SmolLM3."""

from ..config import LMConfig
from .common import TRANSFORMER, Config, attention, expect, model, rotary, swiglu
from .convert import Family


def llama(config: Config) -> LMConfig:
    """Llama, and what only names it differently."""
    expect(config, attention_bias=False)
    return model(config, [attention(config, **rotary(config))] * config["num_hidden_layers"], swiglu(config))


def qwen2(config: Config) -> LMConfig:
    """Biases on q, k, v."""
    expect(config, use_sliding_window=False)
    mixer = attention(config, qkv_bias=True, **rotary(config))
    return model(config, [mixer] * config["num_hidden_layers"], swiglu(config))


def qwen3(config: Config) -> LMConfig:
    """Norms of q and k."""
    expect(config, attention_bias=False, use_sliding_window=False)
    mixer = attention(config, qk_norm=True, **rotary(config))
    return model(config, [mixer] * config["num_hidden_layers"], swiglu(config))


def smollm3(config: Config) -> LMConfig:
    """Every fourth layer has no positions; a 1 in their list says that a layer has them."""
    expect(config, attention_bias=False, use_sliding_window=False)
    interval, depth = config.get("no_rope_layer_interval", 4), config["num_hidden_layers"]
    turning = config.get("no_rope_layers") or [int((i + 1) % interval != 0) for i in range(depth)]
    positions = rotary(config)
    mixers = [attention(config, **(positions | ({} if turns else {"rope_dim": 0}))) for turns in turning[:depth]]
    return model(config, list(mixers), swiglu(config))


LLAMA = Family(llama, TRANSFORMER)
QWEN2 = Family(qwen2, TRANSFORMER)
QWEN3 = Family(qwen3, TRANSFORMER)
SMOLLM3 = Family(smollm3, TRANSFORMER)
