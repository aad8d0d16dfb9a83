from .checkpoint import (
    check_unasked,
    checkpoint_metadata,
    is_finished,
    is_started,
    latest_checkpoint,
    load_model,
    read_records,
)
from .export import Exported, check_export, describe_export, export_model
from .features import ExtractionProgress, FeaturesSpec, extract_features
from .machine import Machine, make_fabric
from .predictions import read_predictions
from .predictor import Asked, Prediction, asked_about, image_paths, load_trained, predict, read_vectors
from .pretrained import TrainedModel
from .recipe import Recipe, check_recipe, make_recipe
from .rerun import open_data, open_recorded
from .soup import average_runs
from .spec import (
    CheckpointMetadata,
    RunSpec,
    build_algorithm,
    check_algorithm,
    choose_backbone,
    target_indices,
)
from .tracking import RunTracking, TensorBoard
from .trainer import Progress, train
from .vectorised import can_train_together, train_together

__all__ = [
    "Asked",
    "CheckpointMetadata",
    "Exported",
    "ExtractionProgress",
    "FeaturesSpec",
    "Machine",
    "Prediction",
    "Progress",
    "Recipe",
    "RunSpec",
    "RunTracking",
    "TensorBoard",
    "TrainedModel",
    "asked_about",
    "average_runs",
    "build_algorithm",
    "can_train_together",
    "check_algorithm",
    "check_export",
    "check_recipe",
    "check_unasked",
    "checkpoint_metadata",
    "choose_backbone",
    "describe_export",
    "export_model",
    "extract_features",
    "image_paths",
    "is_finished",
    "is_started",
    "latest_checkpoint",
    "load_model",
    "load_trained",
    "make_fabric",
    "make_recipe",
    "open_data",
    "open_recorded",
    "predict",
    "read_predictions",
    "read_records",
    "read_vectors",
    "target_indices",
    "train",
    "train_together",
]
