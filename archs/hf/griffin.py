"""RecurrentGemma: Griffin as released."""

from ...layers import AttentionConfig, GeluMLPConfig, RGLRUConfig
from ..config import LMConfig
from .common import ATTENTION, CENTRED, GATED_MLP, Config, attention, expect, model, outer, rotary
from .convert import Family

RG_LRU = {
    "x.kernel": "linear_x.weight",
    "x.bias": "linear_x.bias",
    "y.kernel": "linear_y.weight",
    "y.bias": "linear_y.bias",
    "conv.filter": "conv_1d.weight",
    "conv.bias": "conv_1d.bias",
    "gate_r.kernel": "rg_lru.recurrent_gate_weight",
    "gate_r.bias": "rg_lru.recurrent_gate_bias",
    "gate_i.kernel": "rg_lru.input_gate_weight",
    "gate_i.bias": "rg_lru.input_gate_bias",
    "decay": "rg_lru.recurrent_param",
    "out.kernel": "linear_out.weight",
    "out.bias": "linear_out.bias",
}


def recurrent_gemma(config: Config) -> LMConfig:
    """Griffin as released: half of each head turns, a bias on the attention's output."""
    expect(config, attention_bias=False, hidden_activation="gelu_pytorch_tanh", embeddings_scale_by_sqrt_dim=True)
    heads, width = config["num_attention_heads"], config.get("lru_width") or config["hidden_size"]
    mixers = {
        "recurrent": RGLRUConfig(heads=heads, head_dim=width // heads, short_conv=config["conv1d_width"]),
        "attention": attention(
            config, window=config["attention_window_size"], out_bias=True, **rotary(config, share=0.5)
        ),
    }
    kinds = config.get("block_types") or config.get("_block_types") or ("recurrent", "recurrent", "attention")
    chosen = [mixers[kinds[i % len(kinds)]] for i in range(config["num_hidden_layers"])]
    mlp = GeluMLPConfig(config["intermediate_size"] // 2, gated=True, bias=True)
    return model(config, chosen, mlp, scale_embedding=True, soft_cap=config["logits_soft_cap"])


RECURRENT_GEMMA = Family(
    recurrent_gemma,
    {
        AttentionConfig: ("temporal_block", ATTENTION),
        RGLRUConfig: ("temporal_block", RG_LRU),
        GeluMLPConfig: ("mlp_block", GATED_MLP),
    },
    norms={"norm.scale": "temporal_pre_norm.weight", "mlp_norm.scale": "channel_pre_norm.weight"},
    outer=outer("model.embed_tokens.weight", "model.final_norm.weight"),
    centred=CENTRED,
)
