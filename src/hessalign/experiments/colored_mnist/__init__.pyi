from . import figure
from .config import (
    METHOD_NAMES,
    PUBLISHED_ANNEAL_STEP,
    PUBLISHED_PROBES,
    PUBLISHED_STEPS,
    SOURCE_IMAGES,
    Hutchinson,
    RestartSpec,
    Setting,
    Split,
)
from .data import make_colored_mnist
from .methods import METHODS
from .models import load_model, model_outputs, save_model
from .paper import PublishedAccuracy, published
from .parts import PenaltyParts
from .plan import (
    FAST_METHODS,
    FAST_PROBES,
    TABLE_METHODS,
    describe_reduction,
    fast_setting,
    implied_gamma,
    plan_restarts,
)
from .records import RecordStore
from .restart import DivergedRestart, Metrics, RestartDivergedError, RestartRecord, run_restart
from .selection import RULES, Candidate, Rule, candidate, candidates, choose_by_every_rule
from .study import STUDIES, Study, plan_study
from .summary import Row, group_restarts, label_of, summarise, summarise_group

__all__ = [
    "FAST_METHODS",
    "FAST_PROBES",
    "METHODS",
    "METHOD_NAMES",
    "PUBLISHED_ANNEAL_STEP",
    "PUBLISHED_PROBES",
    "PUBLISHED_STEPS",
    "RULES",
    "SOURCE_IMAGES",
    "STUDIES",
    "TABLE_METHODS",
    "Candidate",
    "DivergedRestart",
    "Hutchinson",
    "Metrics",
    "PenaltyParts",
    "PublishedAccuracy",
    "RecordStore",
    "RestartDivergedError",
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
    "figure",
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
