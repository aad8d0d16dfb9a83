from . import (
    algorithms,
    alignment,
    backbones,
    benchmark,
    cli,
    datasets,
    diagnostics,
    estimator,
    experiments,
    head,
    loop,
    metrics,
    training,
)
from .alignment import HessianAlignment, HessianFlatness
from .diagnostics import AlignmentReport, alignment_report
from .estimator import HessianAlignedClassifier, HessianAlignedRegressor, LeaveOneDomainOut
from .head import (
    AutogradLoss,
    BinaryCrossEntropy,
    CrossEntropy,
    HeadDerivatives,
    HeadLoss,
    SquaredError,
    hessian_distance,
)

__version__: str

__all__ = [
    "AlignmentReport",
    "AutogradLoss",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "HeadDerivatives",
    "HeadLoss",
    "HessianAlignedClassifier",
    "HessianAlignedRegressor",
    "HessianAlignment",
    "HessianFlatness",
    "LeaveOneDomainOut",
    "SquaredError",
    "__version__",
    "algorithms",
    "alignment",
    "alignment_report",
    "backbones",
    "benchmark",
    "cli",
    "datasets",
    "diagnostics",
    "estimator",
    "experiments",
    "head",
    "hessian_distance",
    "loop",
    "metrics",
    "training",
]
