"""Domain generalization by alignment of the classifier head's gradient and Hessian across domains."""

from importlib.metadata import version

import lazy_loader

__version__ = version("hessalign")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
