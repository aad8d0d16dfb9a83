"""60 runs on frozen features (4 domains of 250 samples, 1,280 features, 7 classes), 300 steps each."""

import tempfile
import time
from pathlib import Path

import torch

from benchmarks.timing import Comparison
from hessalign.algorithms import get_algorithm
from hessalign.backbones import BackboneSpec
from hessalign.datasets.features_file import FeaturesFile, save_features
from hessalign.training import Machine, RunSpec, train, train_together

RUNS, ALONE, STEPS, SAMPLES, WIDTH, CLASSES, DOMAINS = 60, 3, 300, 250, 1280, 7, 4
ALGORITHMS = ("erm", "coral", "fishr", "hgp", "hutchinson", "exact_diagonal", "exact_hessian")
CPU = Machine("cpu")


def features(path: Path) -> FeaturesFile:
    """Random features in a file."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(DOMAINS * SAMPLES, WIDTH, generator=generator)
    labels = torch.randint(0, CLASSES, (DOMAINS * SAMPLES,), generator=generator)
    save_features(path, values.half(), labels, torch.arange(DOMAINS).repeat_interleave(SAMPLES))
    return FeaturesFile(path)


def specs(algorithm: str) -> list[RunSpec]:
    """Other targets and seeds for each run."""
    hparams = get_algorithm(algorithm).hparams_class.with_defaults("features").model_dump()
    return [
        RunSpec(
            dataset="features_file",
            algorithm=algorithm,
            target_domains=(run % DOMAINS,),
            backbone=BackboneSpec(name="identity"),
            hparams=hparams,
            seed=run,
            steps=STEPS,
            evaluate_every=STEPS,
        )
        for run in range(RUNS)
    ]


def seconds_per_run(algorithm: str, dataset: FeaturesFile, folder: Path) -> tuple[float, float]:
    """Of a run among sixty, and of a run alone (the mean of a few)."""
    chosen = specs(algorithm)
    started = time.perf_counter()
    train_together(chosen, dataset, [folder / f"together-{run}" for run in range(RUNS)], CPU)
    together = (time.perf_counter() - started) / RUNS
    started = time.perf_counter()
    for run in range(ALONE):
        train(chosen[run], dataset, folder / f"alone-{run}", CPU)
    return together, (time.perf_counter() - started) / ALONE


def run() -> list[Comparison]:
    """Time each algorithm both ways."""
    comparisons = []
    for algorithm in ALGORITHMS:
        with tempfile.TemporaryDirectory() as folder:
            dataset = features(Path(folder) / "features.safetensors")
            together, alone = seconds_per_run(algorithm, dataset, Path(folder))
        comparisons.append(
            Comparison(f"run of {algorithm}, 60 together", "one by one", together, alone, "faster")
        )
    return comparisons
