from .gathering import gather_samples
from .sampler import DomainBalancedSampler, draw_samples
from .schedule import WeightSchedule

__all__ = [
    "DomainBalancedSampler",
    "WeightSchedule",
    "draw_samples",
    "gather_samples",
]
