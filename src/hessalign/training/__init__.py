"""One training run: batches, evaluation, checkpoints, records."""

from hessalign.training.backbone import choose_backbone
from hessalign.training.checkpoint import checkpoint_about, latest_checkpoint, load_model
from hessalign.training.features import ExtractionProgress, FeaturesSpec, extract_features
from hessalign.training.machine import Machine
from hessalign.training.predictor import Prediction, image_paths, load_trained, predict
from hessalign.training.records import read_records
from hessalign.training.spec import CheckpointAbout, RunSpec
from hessalign.training.tensorboard import TensorBoard
from hessalign.training.trainer import (
    Progress,
    build_algorithm,
    check_algorithm,
    is_finished,
    is_started,
    train,
)
from hessalign.training.vectorised import can_train_together, train_together

__all__ = [
    "CheckpointAbout",
    "ExtractionProgress",
    "FeaturesSpec",
    "Machine",
    "Prediction",
    "Progress",
    "RunSpec",
    "TensorBoard",
    "build_algorithm",
    "can_train_together",
    "check_algorithm",
    "checkpoint_about",
    "choose_backbone",
    "extract_features",
    "image_paths",
    "is_finished",
    "is_started",
    "latest_checkpoint",
    "load_model",
    "load_trained",
    "predict",
    "read_records",
    "train",
    "train_together",
]
