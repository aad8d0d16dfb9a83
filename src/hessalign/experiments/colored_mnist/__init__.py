"""Colored MNIST, full batch: Tables 7 and 8 of the paper's supplement.

Figures are in ``figure``, which imports matplotlib.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
