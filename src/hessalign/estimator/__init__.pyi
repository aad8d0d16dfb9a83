from .aligned import HessianAlignedClassifier, HessianAlignedRegressor
from .splitter import LeaveOneDomainOut
from .transformers import DomainCentering, DomainWhitening, ISRCov, ISRMean

__all__ = [
    "DomainCentering",
    "DomainWhitening",
    "HessianAlignedClassifier",
    "HessianAlignedRegressor",
    "ISRCov",
    "ISRMean",
    "LeaveOneDomainOut",
]
