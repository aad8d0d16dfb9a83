"""Networks that turn images into features: DomainBed's own, and any of torchvision or timm."""

from hessalign.backbones.base import Backbone, BackboneSpec, make_backbone
from hessalign.backbones.mnist_cnn import MnistCnn

__all__ = ["Backbone", "BackboneSpec", "MnistCnn", "make_backbone"]
