from . import colored_mnist

__all__ = [
    "colored_mnist",
]
