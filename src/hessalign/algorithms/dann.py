"""Domain-adversarial neural networks (Ganin et al., JMLR 2016)."""

from hessalign.algorithms.adversarial import Adversarial
from hessalign.algorithms.base import register


@register("dann", reference_name="DANN")
class DANN(Adversarial):
    """The discriminator sees the features ``z``."""
