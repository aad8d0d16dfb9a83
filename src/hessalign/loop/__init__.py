"""For training loops of any make: balanced batches, the weight of a penalty over time, several processes."""

from hessalign.loop.gathering import gather_samples
from hessalign.loop.sampler import DomainBalancedSampler, draw_samples
from hessalign.loop.schedule import WeightSchedule

__all__ = ["DomainBalancedSampler", "WeightSchedule", "draw_samples", "gather_samples"]
