"""Datasets made of domains, and the data that ships with the package."""

from hessalign.datasets.mnist import Digits, load_mnist

__all__ = ["Digits", "load_mnist"]
