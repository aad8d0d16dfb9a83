"""What a run leaves on disk: names, locks, records and seals. Loads no PyTorch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
