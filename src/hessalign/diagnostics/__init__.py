"""What differs between domains, and whether alignment removed it.

Plots and pages need matplotlib, which is imported only when one is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
