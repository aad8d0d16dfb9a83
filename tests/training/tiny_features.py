"""Features of three domains in a file."""

from pathlib import Path

import torch

from hessalign.algorithms import get_algorithm
from hessalign.backbones import BackboneSpec
from hessalign.datasets.features_file import FeaturesFile, save_features
from hessalign.training import RunSpec

NAMES, WIDTH, CLASSES = ("north", "south", "east", "west"), 6, 3


def tiny_features(path: Path, samples: int = 40, views: int = 0) -> FeaturesFile:
    """Classes lie in different directions, domains are shifted."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (len(NAMES) * samples,), generator=generator)
    domains = torch.arange(len(NAMES)).repeat_interleave(samples)

    def draw() -> torch.Tensor:
        noise = 0.5 * torch.randn(len(labels), WIDTH, generator=generator)
        return noise + 2 * torch.eye(WIDTH)[labels] + 0.3 * domains.unsqueeze(1)

    features = draw()
    augmented = torch.stack([draw() for _ in range(views)], dim=1) if views else None
    save_features(path, features, labels, domains, domain_names=NAMES, views=augmented)
    return FeaturesFile(path)


def feature_spec(algorithm: str = "erm", overrides: dict | None = None, **changes) -> RunSpec:
    hparams = get_algorithm(algorithm).hparams_class.with_defaults(
        "features", {"batch_size": 8, "lr": 0.01, **(overrides or {})}
    )
    fields = {
        "dataset": "features_file",
        "algorithm": algorithm,
        "target_domains": (3,),
        "backbone": BackboneSpec(name="identity"),
        "hparams": hparams.model_dump(),
        "steps": 12,
        "evaluate_every": 5,
    }
    return RunSpec(**{**fields, **changes})


def flat(metrics: dict) -> dict[tuple[str, str, str], float | None]:
    """The metrics of a record by name, domain and split."""
    return {
        (name, domain, split): value
        for name, domains in metrics.items()
        for domain, splits in domains.items()
        for split, value in splits.items()
    }
