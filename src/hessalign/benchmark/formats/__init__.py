"""Formats of a report: ``grid`` knows what a cell says, a file for each format knows how it is set."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
