"""DomainBed's protocol: sweeps of runs, model selection, and tables.

Reading records and making tables does not wait for PyTorch: what trains is imported where it is needed.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
