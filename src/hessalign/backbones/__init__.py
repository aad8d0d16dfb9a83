"""Networks that turn images into features: DomainBed's own, and any of torchvision or timm.

For data that are features already: the identity, and adapters.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
