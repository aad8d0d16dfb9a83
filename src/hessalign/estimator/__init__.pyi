from .aligned import HessianAlignedClassifier, HessianAlignedRegressor
from .penalised import FishrClassifier, GroupDROClassifier, IRMClassifier, VRExClassifier
from .splitter import LeaveOneDomainOut
from .transformers import DomainCentering, DomainWhitening, ISRCov, ISRMean

__all__ = [
    "DomainCentering",
    "DomainWhitening",
    "FishrClassifier",
    "GroupDROClassifier",
    "HessianAlignedClassifier",
    "HessianAlignedRegressor",
    "IRMClassifier",
    "ISRCov",
    "ISRMean",
    "LeaveOneDomainOut",
    "VRExClassifier",
]
