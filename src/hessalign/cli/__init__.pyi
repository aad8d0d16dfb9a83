from .compare_sources import read_samples
from .devices import usable_device, visible_gpus
from .inspect_sources import InspectOptions, inspect_all
from .main import app
from .saved_predictions import measure_saved
from .sweep_overview import Overview, print_estimate
from .terminal import show_warnings_as_sentences

__all__ = [
    "InspectOptions",
    "Overview",
    "app",
    "inspect_all",
    "measure_saved",
    "print_estimate",
    "read_samples",
    "show_warnings_as_sentences",
    "usable_device",
    "visible_gpus",
]
