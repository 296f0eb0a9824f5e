"""What families share: how a config is read, and the names of the layers that most of them have.

What a config asks for and no layer here has is refused by name: a model that almost fits would answer, wrongly.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ...layers import AttentionConfig, ChannelMixerConfig, MixerConfig, SwiGLUConfig
from ..config import LMConfig

Config = Mapping[str, Any]
Parts = dict[type[MixerConfig] | type[ChannelMixerConfig], tuple[str, dict[str, str]]]

ATTENTION = {
    "qkv.kernel": "q_proj.weight k_proj.weight v_proj.weight",
    "qkv.bias": "q_proj.bias k_proj.bias v_proj.bias",
    "q_norm.scale": "q_norm.weight",
    "k_norm.scale": "k_norm.weight",
    "gate.kernel": "gate_proj.weight",
    "out.kernel": "o_proj.weight",
    "out.bias": "o_proj.bias",
}
GATED_MLP = {
    "up.kernel": "gate_proj.weight up_proj.weight",
    "up.bias": "gate_proj.bias up_proj.bias",
    "down.kernel": "down_proj.weight",
    "down.bias": "down_proj.bias",
}
TRANSFORMER: Parts = {AttentionConfig: ("self_attn", ATTENTION), SwiGLUConfig: ("mlp", GATED_MLP)}

CENTRED = frozenset({"norm.scale", "mlp_norm.scale", "mixer.q_norm.scale", "mixer.k_norm.scale"})
"""The norms that Gemma, and Qwen since Qwen3-Next, store less 1."""


def outer(embedding: str, norm: str) -> dict[str, str]:
    """The names outside the blocks, where they are not Llama's."""
    return {"embedding": embedding, "norm.scale": norm, "head.kernel": "lm_head.weight"}


def expect(config: Config, **wanted: Any) -> None:
    """Refuses a config in which one of these fields has another value."""
    for name, value in wanted.items():
        if config.get(name, value) != value:
            raise ValueError(f"{config['model_type']}: {name}={config[name]!r}; only {value!r} can be loaded")


def model(config: Config, mixers: Sequence[MixerConfig], mlp: ChannelMixerConfig | None, **changes: Any) -> LMConfig:
    """The model of these mixers, which repeat with the shortest period that fits."""
    period = next(n for n in range(1, len(mixers) + 1) if all(a == b for a, b in zip(mixers, mixers[n:], strict=False)))
    settings = {
        "vocab": config["vocab_size"],
        "dim": config["hidden_size"],
        "depth": len(mixers),
        "tied": config.get("tie_word_embeddings", True),
        "norm_eps": config.get("rms_norm_eps", 1e-6),
    }
    return LMConfig(**settings, pattern=tuple(mixers[:period]), mlp=mlp, **changes)


def head_dim(config: Config) -> int:
    """The width of an attention head."""
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def rotary(config: Config, share: float = 1.0, base: float = 10_000.0) -> dict[str, Any]:
    """Rotary positions: older configs have them at the top, newer ones in a table."""
    table = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = table.get("rope_type", table.get("type", "default"))
    expect({"model_type": config["model_type"], "rope_type": kind}, rope_type="default")
    share = table.get("partial_rotary_factor", config.get("partial_rotary_factor", share))
    width, whole = int(head_dim(config) * share), head_dim(config)
    base = table.get("rope_theta", config.get("rope_theta", base))
    return {"rope_base": float(base), "rope_dim": None if width == whole else width}


def attention(config: Config, **changes: Any) -> AttentionConfig:
    """Softmax attention."""
    settings = {
        "heads": config["num_attention_heads"],
        "head_dim": head_dim(config),
        "kv_heads": config.get("num_key_value_heads") or config["num_attention_heads"],
        "norm_eps": config.get("rms_norm_eps", 1e-6),
    }
    return AttentionConfig(**(settings | changes))


def swiglu(config: Config) -> SwiGLUConfig:
    """The gated channel mixer."""
    expect(config, hidden_act="silu", mlp_bias=False)
    return SwiGLUConfig(config["intermediate_size"])
