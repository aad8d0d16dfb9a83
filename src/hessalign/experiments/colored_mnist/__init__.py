"""Colored MNIST, full batch: Tables 7 and 8 of the paper's supplement.

Figures are in ``figure`` and ``curves``, which import matplotlib.
"""

from hessalign.experiments.colored_mnist.config import (
    PUBLISHED_ANNEAL_STEP,
    PUBLISHED_PROBES,
    PUBLISHED_STEPS,
    Hutchinson,
    RestartSpec,
    Setting,
)
from hessalign.experiments.colored_mnist.data import SOURCE_IMAGES, Split, make_colored_mnist
from hessalign.experiments.colored_mnist.methods import METHODS
from hessalign.experiments.colored_mnist.models import load_model, model_outputs, save_model
from hessalign.experiments.colored_mnist.paper import PublishedAccuracy, published
from hessalign.experiments.colored_mnist.parts import PenaltyParts
from hessalign.experiments.colored_mnist.plan import (
    FAST_METHODS,
    FAST_PROBES,
    TABLE_METHODS,
    describe_reduction,
    fast_setting,
    implied_gamma,
    plan_restarts,
)
from hessalign.experiments.colored_mnist.records import RecordStore
from hessalign.experiments.colored_mnist.restart import Metrics, RestartRecord, run_restart
from hessalign.experiments.colored_mnist.selection import (
    RULES,
    Candidate,
    Rule,
    candidate,
    candidates,
    choose_by_every_rule,
)
from hessalign.experiments.colored_mnist.study import STUDIES, Study, plan_study
from hessalign.experiments.colored_mnist.summary import (
    Row,
    group_restarts,
    label_of,
    summarise,
    summarise_group,
)

__all__ = [
    "FAST_METHODS",
    "FAST_PROBES",
    "METHODS",
    "PUBLISHED_ANNEAL_STEP",
    "PUBLISHED_PROBES",
    "PUBLISHED_STEPS",
    "RULES",
    "SOURCE_IMAGES",
    "STUDIES",
    "TABLE_METHODS",
    "Candidate",
    "Hutchinson",
    "Metrics",
    "PenaltyParts",
    "PublishedAccuracy",
    "RecordStore",
    "RestartRecord",
    "RestartSpec",
    "Row",
    "Rule",
    "Setting",
    "Split",
    "Study",
    "candidate",
    "candidates",
    "choose_by_every_rule",
    "describe_reduction",
    "fast_setting",
    "group_restarts",
    "implied_gamma",
    "label_of",
    "load_model",
    "make_colored_mnist",
    "model_outputs",
    "plan_restarts",
    "plan_study",
    "published",
    "run_restart",
    "save_model",
    "summarise",
    "summarise_group",
]
