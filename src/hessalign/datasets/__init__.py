"""Datasets made of domains, and the data that ships with the package.

Datasets are reached by name, ``make_dataset("pacs", root)``: their modules, which need torchvision, are
imported only then.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
