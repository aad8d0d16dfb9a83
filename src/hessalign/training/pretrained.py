"""A trained run as a model of its own: saved to a folder, loaded from one, used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from hessalign import runs
from hessalign.algorithms import Algorithm
from hessalign.algorithms.base import known_as
from hessalign.grid import NOTHING, Grid
from hessalign.runs.layout import METRICS
from hessalign.runs.pretrained import RULES, Selection
from hessalign.runs.records import read_records
from hessalign.training.export import describe_export
from hessalign.training.predictor import PHOTOGRAPH, Prediction, asked_about, load_trained, predict
from hessalign.training.spec import CheckpointMetadata

EVALUATION = "evaluation"
"""Field of a shared model's config: accuracies by domain and split, as the run's record has them."""
OF_PHOTOGRAPHS = """from hessalign.training import TrainedModel

model = TrainedModel.from_pretrained({place!r})  # or "OWNER/NAME" on the Hub
predictions = model.predict(["photos"])"""
OF_ARRAYS = """import numpy as np

from hessalign.training import TrainedModel

np.save({file!r}, np.zeros({shape}, dtype="float32"))  # yours come here, {wanted}
model = TrainedModel.from_pretrained({place!r})  # or "OWNER/NAME" on the Hub
predictions = model.predict([{file!r}])"""


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained network with what is known of it.

    Attributes:
        algorithm: The network, in evaluation mode; maps inputs ``(n, ...)`` to logits ``(n, C)``.
        metadata: What it was trained on.
        accuracies: From 0 to 1, by domain and split, measured at its step; None where that is not known.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.datasets import find_data
        >>> from hessalign.datasets.features_file import save_features
        >>> from hessalign.training import Machine, RunSpec, TrainedModel, train
        >>> y, site = np.arange(24) % 2, np.arange(24) // 8
        >>> X = (np.random.default_rng(0).normal(size=(24, 3)) + 3 * y[:, None]).astype("float32")
        >>> hparams = get_algorithm("erm").hparams_class.with_defaults("features", {"batch_size": 4})
        >>> spec = RunSpec(
        ...     dataset="features_file",
        ...     algorithm="erm",
        ...     target_domains=(2,),
        ...     backbone=BackboneSpec(name="identity"),
        ...     hparams=hparams.model_dump(),
        ...     steps=4,
        ...     evaluate_every=2,
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     place = Path(folder)
        ...     written = save_features(place / "sites.safetensors", X, y, site)
        ...     dataset = find_data(f"{folder}/sites.safetensors").open(seed=0)
        ...     record = train(spec, dataset, place / "run", Machine("cpu"))
        ...     model = TrainedModel.load(place / "run")
        ...     model.save_pretrained(place / "shared")
        ...     again = TrainedModel.from_pretrained(place / "shared")
        >>> model.accuracies == record["accuracies"] == again.accuracies
        True
        >>> again.metadata.run == spec
        True
    """

    algorithm: Algorithm
    metadata: CheckpointMetadata
    accuracies: Mapping[str, Mapping[str, float | None]] | None

    @classmethod
    def load(cls, path: Path) -> "TrainedModel":
        """The model of a run's folder, of a checkpoint, or of a shared model's folder.

        Args:
            path: Of the folder.

        Returns:
            The model.

        Raises:
            ValueError: If there is none, or what is there is damaged.
            OSError: If a file cannot be read.
            DivergedError: If the folder is that of a run that diverged.
        """
        if runs.is_pretrained(path):
            return cls.from_pretrained(path)
        algorithm, metadata = load_trained(path)
        folder = path if (path / METRICS).exists() else path.parent.parent
        records = read_records(folder) if (folder / METRICS).exists() else []
        found = [record for record in records if record["step"] == metadata.step - 1]
        return cls(algorithm, metadata, found[0]["accuracies"] if found else None)

    @classmethod
    def from_pretrained(cls, name: str | Path, revision: str | None = None) -> "TrainedModel":
        """The model that [save_pretrained][hessalign.training.TrainedModel.save_pretrained] wrote.

        Args:
            name: Of a folder; or ``OWNER/NAME`` of a model on the Hugging Face Hub.
            revision: Branch, tag or commit on the Hub; None (default) for its main branch.

        Returns:
            The model.

        Raises:
            ValueError: If there is no such model, or it is damaged.
            OSError: If it cannot be fetched or read.
        """
        found = runs.read_pretrained(name, "run", revision)
        return cls(*load_trained(found.folder), found.config.get(EVALUATION))

    def save_pretrained(self, folder: str | Path, *, selection: Selection = "none") -> None:
        """Write weights (safetensors), ``config.json`` and a model card; nothing in them can be executed.

        The folder is what the Hugging Face Hub takes: ``hf upload OWNER/NAME FOLDER``.

        Args:
            folder: Of the model alone; created where it is missing.
            selection: By which rule it was chosen among other runs, for the card: ``"none"`` (default),
                ``"source-validation"``, ``"leave-one-domain-out"``, ``"worst-group"`` or ``"oracle"``.

        Raises:
            ValueError: If the rule is not known, or the folder holds something else.
            OSError: If a file cannot be written.
        """
        runs.check_selection(selection)
        place = Path(folder)
        state = {
            name: value.detach().cpu().contiguous() for name, value in self.algorithm.state_dict().items()
        }
        about = describe_export(self.metadata)
        metadata = self.metadata.model_dump(mode="json") | {"run": about["run"]}
        config = {
            "metadata": metadata,
            "selection": selection,
            "transforms": about["transforms"],
            EVALUATION: self.accuracies,
        }
        runs.write_pretrained(place, "run", save(state), config, self._card(place, selection))

    def predict(
        self, inputs: Sequence[str | Path], *, device: torch.device | str = "cpu", batch_size: int = 32
    ) -> list[Prediction]:
        """Class and probability of each sample.

        Args:
            inputs: Paths of images, folders and tables, of files of feature vectors, or of NumPy files: what
                [asked_about][hessalign.training.asked_about] takes.
            device: Where to compute; the processor by default.
            batch_size: Samples that go through the network together; 32 by default.

        Returns:
            A prediction for each sample, in order.

        Raises:
            ValueError: If a path leads to nothing that the model takes.
            OSError: If a file cannot be read.
        """
        asked = asked_about(list(map(Path, inputs)), self.metadata)
        found = predict(self.algorithm, self.metadata, asked, device=device, batch_size=batch_size)
        return list(found)

    def _card(self, folder: Path, selection: Selection) -> runs.Card:
        run, step = self.metadata.run, self.metadata.step
        domains = list(self.accuracies or ())
        targets = [domains[index] if domains else f"number {index}" for index in run.target_domains]
        sources = [name for index, name in enumerate(domains) if index not in run.target_domains]
        hparams = ", ".join(f"{key} = {value}" for key, value in sorted(run.hparams.items()))
        data = f"Dataset {run.dataset}{f' (fingerprint {run.data})' if run.data else ''}. "
        data += f"Trained on {', '.join(sources) or 'the other domains'}; never on {', '.join(targets)}. "
        data += f"Classes: {', '.join(self.metadata.class_names)}."
        words = [known_as(self.algorithm)]
        words += [] if run.recipe is None else run.recipe.words()
        words += [] if run.average is None else [run.average.words()]
        shape, place = self.metadata.input_shape, runs.place_in_card(folder)
        tables = {}
        if self.accuracies is not None:
            notes = f"In percent, after {step:,} updates; {run.evaluated_on()}."
            tables["Accuracy by domain"] = _accuracies(
                self.accuracies, run.target_domains, notes
            ).to_markdown()
        if shape == PHOTOGRAPH:
            needs, use, file = (
                "`photos` is a folder with images of any size, or one of them.",
                OF_PHOTOGRAPHS,
                "",
            )
        else:
            needs, use, file = "", OF_ARRAYS, "features.npy" if len(shape) == 1 else "inputs.npy"
        wanted = f"(n, {', '.join(map(str, shape))}), as in training"
        return runs.Card(
            title=folder.resolve().name,
            task="image-classification" if len(shape) > 1 else "tabular-classification",
            tags=["domain-generalization", run.algorithm],
            facts={
                "Data": data,
                "Training": f"{', '.join(words)}, backbone {run.backbone.name}, {step} of "
                f"{run.steps} steps, seed {run.seed}; {hparams}. Run {run.identity()}.",
                "Selection": RULES[selection],
            },
            tables=tables,
            use=use.format(place=place, file=file, shape=(1, *shape), wanted=wanted),
            command=runs.predict_command(place, file or "photos"),
            needs=needs,
        )


def _accuracies(
    accuracies: Mapping[str, Mapping[str, float | None]], targets: Sequence[int], note: str
) -> Grid:
    def shown(value: Any) -> str:
        return NOTHING if value is None else f"{100 * value:.1f}"

    rows = [
        [
            domain,
            "target" if index in targets else "source",
            shown(splits.get("in")),
            shown(splits.get("out")),
        ]
        for index, (domain, splits) in enumerate(accuracies.items())
    ]
    return Grid(
        ["Domain", "role", "in", "out"],
        rows,
        align="llrr",
        notes=[note],
    )
