"""Alignment of a linear head's gradients and Hessians across domains, with scikit-learn's contract."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
