from .evaluation import Evaluation, Slices, is_metric, value_for_scoring
from .frames import slices_frame
from .measures import count_groups, evaluate, measure_split
from .scorer import Scorer
from .slicing import HIGHER_IS_BETTER, OF_ONE_CLASS

__all__ = [
    "HIGHER_IS_BETTER",
    "OF_ONE_CLASS",
    "Evaluation",
    "Scorer",
    "Slices",
    "count_groups",
    "evaluate",
    "is_metric",
    "measure_split",
    "slices_frame",
    "value_for_scoring",
]
