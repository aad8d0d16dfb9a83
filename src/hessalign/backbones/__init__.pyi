from . import adapter, mnist_cnn, pretrained
from .adapter import Adapter
from .base import Backbone, BackboneSpec, make_backbone
from .mnist_cnn import MnistCnn
from .weights import network_sha256

__all__ = [
    "Adapter",
    "Backbone",
    "BackboneSpec",
    "MnistCnn",
    "adapter",
    "make_backbone",
    "mnist_cnn",
    "network_sha256",
    "pretrained",
]
