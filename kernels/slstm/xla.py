"""sLSTM token by token, with a backward pass that keeps the states alone."""

import jax

from ..recurrence import scan_cell
from .reference import cell


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@jax.jit
def run(gates, r, *, initial_state, segment_ids):
    """See ``slstm``."""
    return scan_cell(cell, gates, r, initial_state, segment_ids)
