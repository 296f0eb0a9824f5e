"""Data: step-addressed batches, and fixed evaluation sets."""

from .base import Batch, DataConfig, Source, Split
from .embedded import EmbeddedTextConfig
from .files import FilesConfig
from .mqar import MQARConfig, zoology
from .selective_copying import SelectiveCopyingConfig
from .state_tracking import StateTrackingConfig

__all__ = [
    "Batch",
    "DataConfig",
    "EmbeddedTextConfig",
    "FilesConfig",
    "MQARConfig",
    "SelectiveCopyingConfig",
    "Source",
    "Split",
    "StateTrackingConfig",
    "zoology",
]
