from .classifier import HessianAlignedClassifier
from .regressor import HessianAlignedRegressor
from .splitter import LeaveOneDomainOut

__all__ = [
    "HessianAlignedClassifier",
    "HessianAlignedRegressor",
    "LeaveOneDomainOut",
]
