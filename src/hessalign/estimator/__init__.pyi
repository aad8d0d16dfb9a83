from .aligned import HessianAlignedClassifier, HessianAlignedRegressor
from .compare import compare_heads
from .comparison import HeadComparison
from .groups import InferredGroups, infer_groups
from .penalised import FishrClassifier, GroupDROClassifier, IRMClassifier, VRExClassifier
from .persistence import load_pretrained
from .reweighted import AFRClassifier, DFRClassifier, JTTClassifier, interpolate_heads
from .splitter import LeaveOneDomainOut
from .transformers import (
    DomainCentering,
    DomainInformedFeatures,
    DomainWhitening,
    ISRCov,
    ISRMean,
)

__all__ = [
    "AFRClassifier",
    "DFRClassifier",
    "DomainCentering",
    "DomainInformedFeatures",
    "DomainWhitening",
    "FishrClassifier",
    "GroupDROClassifier",
    "HeadComparison",
    "HessianAlignedClassifier",
    "HessianAlignedRegressor",
    "IRMClassifier",
    "ISRCov",
    "ISRMean",
    "InferredGroups",
    "JTTClassifier",
    "LeaveOneDomainOut",
    "VRExClassifier",
    "compare_heads",
    "infer_groups",
    "interpolate_heads",
    "load_pretrained",
]
