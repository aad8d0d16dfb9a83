from .devices import is_cpu, usable_device, visible_gpus
from .inspect_sources import InspectOptions, inspect_all
from .main import app
from .sweep_estimate import print_estimate
from .sweep_overview import Overview

__all__ = [
    "InspectOptions",
    "Overview",
    "app",
    "inspect_all",
    "is_cpu",
    "print_estimate",
    "usable_device",
    "visible_gpus",
]
