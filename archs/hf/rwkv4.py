"""RWKV-4: each of its layers is two blocks here, and the norm of its embedding a part of that."""

import numpy as np

from ...layers import RWKV4Config, RWKV6ChannelConfig
from ..config import LMConfig
from .common import Config, expect, model, outer
from .convert import Family, Tensors

TIME_MIXING = {
    "mix": "time_mix_key time_mix_value time_mix_receptance",
    "decay": "time_decay",
    "bonus": "time_first",
    "key.kernel": "key.weight",
    "value.kernel": "value.weight",
    "receptance.kernel": "receptance.weight",
    "out.kernel": "output.weight",
}
CHANNEL_MIXING = {
    "mix_k": "time_mix_key",
    "mix_r": "time_mix_receptance",
    "key.kernel": "key.weight",
    "value.kernel": "value.weight",
    "receptance.kernel": "receptance.weight",
}
PAIR = {"ln1": (0, "norm"), "attention": (0, "mixer"), "ln2": (1, "norm"), "feed_forward": (1, "mixer")}
"""Which of the two blocks has a part of a layer, and its name there."""
EPSILON = 1e-5


def rwkv4(config: Config) -> LMConfig:
    """Time mixing and channel mixing in turn; what ``rescale_every`` halves for float16 is left as trained."""
    dim = config["hidden_size"]
    expect({"attention_hidden_size": dim, **config}, attention_hidden_size=dim, layer_norm_epsilon=EPSILON)
    channel = RWKV6ChannelConfig(hidden=config.get("intermediate_size") or 4 * dim, steepness=1)
    settings = {"tie_word_embeddings": False, **config, "rms_norm_eps": EPSILON}
    return model(settings, [RWKV4Config(), channel] * config["num_hidden_layers"], None, norm="layer")


def halves(config: Config, tensors: Tensors) -> Tensors:
    """Layers as pairs of blocks, and the embedding after its norm."""
    found = {}
    for name, tensor in tensors.items():
        if name.startswith("rwkv.blocks.") and ".pre_ln." not in name:
            _, _, layer, part, rest = name.split(".", 4)
            half, renamed = PAIR[part]
            found[f"layers.{2 * int(layer) + half}.{renamed}.{rest}"] = tensor
        else:
            found[name] = tensor
    scale, bias = (np.asarray(found.pop(f"rwkv.blocks.0.pre_ln.{name}"), np.float64) for name in ("weight", "bias"))
    rows = np.asarray(found["rwkv.embeddings.weight"], np.float64)
    centred = rows - rows.mean(1, keepdims=True)
    normed = centred / np.sqrt(np.mean(centred**2, 1, keepdims=True) + EPSILON)
    return found | {"rwkv.embeddings.weight": np.asarray(normed * scale + bias, np.float32)}


def shares(config: Config, layer: Tensors) -> Tensors:
    """Mixtures are the current token's share there, the last one's here, and have two axes too many."""
    time = "mixer.time_decay" in layer
    mixtures = {name: 1 - np.asarray(tensor, np.float32) for name, tensor in layer.items() if ".time_mix_" in name}
    return layer | {name: tensor[0] if time else tensor[0, 0] for name, tensor in mixtures.items()}


RWKV4 = Family(
    rwkv4,
    {RWKV4Config: ("mixer", TIME_MIXING), RWKV6ChannelConfig: ("mixer", CHANNEL_MIXING)},
    norms={"norm.scale": "norm.weight", "norm.bias": "norm.bias"},
    outer=outer("rwkv.embeddings.weight", "rwkv.ln_out.weight")
    | {"norm.bias": "rwkv.ln_out.bias", "head.kernel": "head.weight"},
    layers="layers",
    prepare=halves,
    arrange=shares,
)
