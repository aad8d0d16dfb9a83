from .backbone import choose_backbone
from .checkpoint import checkpoint_about, latest_checkpoint, load_model
from .features import ExtractionProgress, FeaturesSpec, extract_features
from .machine import Machine, make_fabric
from .predictor import Prediction, image_paths, load_trained, predict
from .spec import CheckpointAbout, RunSpec
from .tensorboard import TensorBoard
from .trainer import Progress, build_algorithm, check_algorithm, is_finished, is_started, read_records, train
from .vectorised import can_train_together, train_together

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
    "make_fabric",
    "predict",
    "read_records",
    "train",
    "train_together",
]
