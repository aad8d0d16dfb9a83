from . import pretrained
from .base import Backbone, BackboneSpec, make_backbone
from .networks import Adapter, MnistCnn
from .weights import network_sha256

__all__ = [
    "Adapter",
    "Backbone",
    "BackboneSpec",
    "MnistCnn",
    "make_backbone",
    "network_sha256",
    "pretrained",
]
