"""Model-FLOPs utilisation: how much of an accelerator's peak the model's own arithmetic uses."""

from .config import RunConfig

PEAK_FLOPS = {
    "TPU v4": 275e12,  # cloud.google.com/tpu/docs/v4
    "TPU v5 lite": 197e12,  # cloud.google.com/tpu/docs/v5e
    "TPU v5": 459e12,  # cloud.google.com/tpu/docs/v5p
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,  # cloud.google.com/tpu/docs/v6e
    "NVIDIA A100-SXM4-40GB": 312e12,  # NVIDIA A100 data sheet
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,  # NVIDIA H100 data sheet, SXM
    "NVIDIA H200": 989e12,  # NVIDIA H200 data sheet, SXM
}
"""Dense bfloat16 operations a second of one device, by ``device_kind``, from the makers' data sheets."""


def utilisation(run: RunConfig, length: int, tokens_per_s: float, device_kind: str) -> float | None:
    """The fraction of the devices' peak: ``3 * flops_per_token * tokens_per_s / (devices * peak)``.

    Training is three forward passes' work: recomputation does not count.

    Returns:
        The fraction, or None on a CPU or a device whose peak is not known.

    Source: Chowdhery et al. 2022, arXiv 2204.02311, appendix B.
    """
    peak = PEAK_FLOPS.get(device_kind)
    return 3 * run.model.flops_per_token(length) * tokens_per_s / (run.devices * peak) if peak else None
