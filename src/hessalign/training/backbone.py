"""The backbone of a run, where not every choice was made by hand."""

from pathlib import Path
from typing import Any

from hessalign.backbones import BackboneSpec
from hessalign.backbones.base import OWN_NETWORKS
from hessalign.backbones.weights import file_sha256
from hessalign.datasets.base import DomainDataset


def choose_backbone(
    dataset: DomainDataset | type[DomainDataset],
    name: str | None = None,
    weights: str | None = None,
    train_batch_norm: bool = False,
    dropout: float = 0.0,
    rank: int | None = None,
    normalization: str | None = None,
) -> BackboneSpec:
    """What is trained on a dataset.

    Args:
        dataset: Its class says which backbone is the default: the identity where inputs are features.
        name: Of the backbone; None for the default.
        weights: As [BackboneSpec][] takes them; None for ``"hub"``, or ``"none"`` where there are none.
        train_batch_norm: Let running statistics move even with pretrained weights.
        dropout: The hyper-parameter; images of 28 pixels have none, as in DomainBed.
        rank: Of an adapter; None for the default.
        normalization: As [BackboneSpec][] takes it; None for the default.

    Raises:
        ValueError: If a choice is not allowed.
        OSError: If a weights file is missing.
    """
    chosen = name or dataset.default_backbone
    source = weights or ("none" if chosen in OWN_NETWORKS else "hub")
    fields: dict[str, Any] = {"name": chosen, "weights": source, "rank": rank}
    if train_batch_norm:
        fields["frozen_batch_norm"] = False
    if normalization is not None:
        fields["normalization"] = normalization
    if dataset.search_space != "small":
        fields["dropout"] = dropout
    spec = BackboneSpec(**fields)
    if not isinstance(spec.weights, Path):
        return spec
    path = spec.weights.absolute()
    return spec.model_copy(update={"weights": path, "weights_sha256": file_sha256(path)})
