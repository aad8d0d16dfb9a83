from .aligned import HessianAlignedClassifier, HessianAlignedRegressor
from .penalised import FishrClassifier, GroupDROClassifier, IRMClassifier, VRExClassifier
from .reweighted import AFRClassifier, DFRClassifier, JTTClassifier, interpolate_heads
from .splitter import LeaveOneDomainOut
from .transformers import DomainCentering, DomainWhitening, ISRCov, ISRMean

__all__ = [
    "AFRClassifier",
    "DFRClassifier",
    "DomainCentering",
    "DomainWhitening",
    "FishrClassifier",
    "GroupDROClassifier",
    "HessianAlignedClassifier",
    "HessianAlignedRegressor",
    "IRMClassifier",
    "ISRCov",
    "ISRMean",
    "JTTClassifier",
    "LeaveOneDomainOut",
    "VRExClassifier",
    "interpolate_heads",
]
