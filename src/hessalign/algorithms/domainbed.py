"""Classes that were written for DomainBed, trained here as they are."""

import copy
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import create_model
from pydantic.fields import FieldInfo
from torch import Tensor, nn
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, Optimizers, known_as, register
from hessalign.algorithms.hparams import HParams
from hessalign.algorithms.memory import attributes_of, bring_back, decoded, encoded

BACKBONE, WIDTH, INPUT_SHAPE = "hessalign_backbone", "hessalign_width", "hessalign_input_shape"
N_OUTPUTS = "n_outputs"


def from_domainbed(
    algorithm: type[nn.Module],
    name: str,
    hparams: Mapping[str, Any] | None = None,
    reference_name: str | None = None,
) -> type[Algorithm]:
    """Make a class that was written for DomainBed an algorithm of this library, and register it.

    The class is made by ``algorithm(input_shape, num_classes, num_domains, hparams)``, is given
    ``update(minibatches)`` with one ``(x, y)`` for each source domain and returns numbers by name, and has
    ``predict(x)`` for logits. It makes its own optimisers. ``hparams`` is a dict with DomainBed's names.

    A checkpoint holds its parameters, buffers, optimisers and what else its attributes remember: numbers,
    tensors, arrays, lists, dicts and objects of these. Draws of NumPy and of Python's ``random`` come from
    states of its own that are seeded by the run and kept, too. So a run resumes to the last bit.

    For the run's backbone, replace ``networks.Featurizer`` and ``networks.Classifier`` by those of
    ``hessalign.algorithms.domainbed``. A class that builds networks of its own is trained with these, and
    ``--backbone`` has no effect. Several processes cannot share an update.

    Args:
        algorithm: The class.
        name: What ``--algorithm`` calls it.
        hparams: Its own hyper-parameters by name: a default, whose type all its values have, or
            ``hparam(default, search)`` where a sweep is to draw it. ``lr``, ``weight_decay``, ``batch_size``
            and ``resnet_dropout`` need not be named.
        reference_name: What seeds the runs of a sweep; the class's name by default, as in DomainBed.

    Returns:
        The algorithm's class.

    Raises:
        ValueError: If the name is taken, or the class lacks ``update`` or ``predict``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from hessalign.algorithms import DomainBatch
        >>> from hessalign.algorithms.domainbed import Classifier, Featurizer, from_domainbed
        >>> class Plain(nn.Module):
        ...     def __init__(self, input_shape, num_classes, num_domains, hparams):
        ...         super().__init__()
        ...         featurizer = Featurizer(input_shape, hparams)
        ...         classifier = Classifier(featurizer.n_outputs, num_classes)
        ...         self.network = nn.Sequential(featurizer, classifier)
        ...         self.optimizer = torch.optim.SGD(self.parameters(), lr=hparams["lr"])
        ...     def update(self, minibatches, unlabeled=None):
        ...         x, y = (torch.cat(parts) for parts in zip(*minibatches))
        ...         loss = nn.functional.cross_entropy(self.predict(x), y)
        ...         self.optimizer.zero_grad()
        ...         loss.backward()
        ...         self.optimizer.step()
        ...         return {"loss": loss.item()}
        ...     def predict(self, x):
        ...         return self.network(x)
        >>> made = from_domainbed(Plain, "plain_of_the_docs")
        >>> one = made(nn.Identity(), 4, 2, 2, made.hparams_class(lr=0.1))
        >>> batch = DomainBatch(torch.ones(4, 4), torch.tensor([0, 1, 0, 0]), torch.tensor([0, 0, 1, 1]), 2)
        >>> list(one.update(batch, one.make_optimizers()))
        ['loss']
    """
    for method in ("update", "predict"):
        if not callable(getattr(algorithm, method, None)):
            raise ValueError(
                f"algorithm: {algorithm.__name__} has no method {method}; DomainBed's classes have"
            )
    fields: dict[str, Any] = {}
    for field, value in (hparams or {}).items():
        default = value.default if isinstance(value, FieldInfo) else value
        fields[field] = (type(default), value)
    made: type[Algorithm] = type(
        algorithm.__name__,
        (DomainBedAlgorithm,),
        {
            "__doc__": algorithm.__doc__,
            "__module__": algorithm.__module__,
            "written": algorithm,
            "hparams_class": create_model(f"{algorithm.__name__}HParams", __base__=HParams, **fields),
        },
    )
    return register(name, reference_name or algorithm.__name__)(made)


def Featurizer(input_shape: tuple[int, ...], hparams: Mapping[str, Any]) -> nn.Module:  # noqa: N802 (DomainBed's)
    """The run's backbone, for a class that DomainBed's ``networks.Featurizer`` made one for.

    Args:
        input_shape: As the class was given it.
        hparams: As the class was given them.

    Returns:
        A copy of the backbone, with the number of its features as ``n_outputs``.

    Raises:
        ValueError: If the hyper-parameters are not those that the class was given, or the shape is another
            one.
    """
    if BACKBONE not in hparams:
        raise ValueError(
            "hparams: must be those that the class was given by from_domainbed, they name the backbone"
        )
    if tuple(input_shape) != hparams[INPUT_SHAPE]:
        raise ValueError(
            f"input_shape: the run's backbone takes {hparams[INPUT_SHAPE]}, got {tuple(input_shape)}; build "
            "a network of your own for other inputs"
        )
    featurizer: nn.Module = copy.deepcopy(hparams[BACKBONE])
    setattr(featurizer, N_OUTPUTS, hparams[WIDTH])
    return featurizer


def Classifier(in_features: int, out_features: int, is_nonlinear: bool = False) -> nn.Module:  # noqa: N802
    """The head that DomainBed's ``networks.Classifier`` makes.

    Args:
        in_features: Number of features.
        out_features: Number of classes.
        is_nonlinear: With two hidden layers, of a half and a quarter of the features.

    Returns:
        The head.
    """
    if not is_nonlinear:
        return nn.Linear(in_features, out_features)
    half, quarter = in_features // 2, in_features // 4
    return nn.Sequential(
        nn.Linear(in_features, half),
        nn.ReLU(),
        nn.Linear(half, quarter),
        nn.ReLU(),
        nn.Linear(quarter, out_features),
    )


class DomainBedAlgorithm(Algorithm):
    """Written for DomainBed: the class's own update and prediction."""

    written: ClassVar[type[nn.Module]]
    needs_one_process = True

    @override
    def build(self) -> None:
        self.inner: nn.Module | None = None  # made with the first inputs, whose shape it is given
        self._states = _seeded_states()
        self.register_state_dict_post_hook(_without_aliases)  # type: ignore[no-untyped-call]

    @override
    def make_optimizers(self) -> Optimizers:
        return {}  # the class has its own, which are kept with it

    @override
    def no_effect(self) -> str | None:
        if self.inner is not None and not self._uses_backbone:
            return (
                f"backbone: {known_as(self)} builds a network of its own, so the choice of a backbone has no "
                "effect; hessalign.algorithms.domainbed.Featurizer gives it the run's"
            )
        return super().no_effect()

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        logits = self._made(inputs).predict(inputs)  # type: ignore[operator]
        if not isinstance(logits, Tensor) or logits.shape != (len(inputs), self.classes):
            found = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(
                f"algorithm: predict of {known_as(self)} must return logits ({len(inputs)}, {self.classes}), "
                f"got {found}"
            )
        return logits

    @override
    def step(self, batch: DomainBatch, optimizers: Optimizers) -> Metrics:
        inner = self._made(batch.inputs)
        minibatches = list(zip(batch.by_domain(batch.inputs), batch.by_domain(batch.targets), strict=True))
        with self._own_draws():
            found = inner.update(minibatches)  # type: ignore[operator]
        if not isinstance(found, Mapping) or not found:
            raise ValueError(
                f"algorithm: update of {known_as(self)} must return numbers by name, got {found!r:.80}"
            )
        device = batch.inputs.device
        metrics = {str(name): torch.as_tensor(value, device=device).detach() for name, value in found.items()}
        return metrics if "loss" in metrics else {"loss": next(iter(metrics.values())), **metrics}

    def _made(self, inputs: Tensor) -> nn.Module:
        if self.inner is not None:
            return self.inner
        shape = tuple(inputs.shape[1:])
        own = self.hparams.model_dump()
        hparams = {
            "nonlinear_classifier": False,
            "class_balanced": False,
            "data_augmentation": True,
            **own,
            "resnet_dropout": own["dropout"],
            BACKBONE: (backbone := self.backbone),
            WIDTH: self.width,
            INPUT_SHAPE: shape,
        }
        with self._own_draws(), torch.enable_grad():
            inner = self.written(shape, self.classes, self.domains, hparams)
        self._hparams_given = (hparams, backbone)
        # The run's own backbone and head have done their duty; the class's stand in for them.
        del self.backbone, self.head
        self.inner = inner.to(inputs.device).train(self.training)
        featurizer, classifier = getattr(inner, "featurizer", None), getattr(inner, "classifier", None)
        self._uses_backbone = any(
            type(module) is type(backbone) and hasattr(module, N_OUTPUTS) for module in inner.modules()
        )
        for name, module in (("backbone", featurizer), ("head", classifier)):
            if isinstance(module, nn.Module):
                object.__setattr__(self, name, module)  # not registered twice
        attributes_of(inner, self._constants())  # what cannot be kept is to be known before any work
        return inner

    def _constants(self) -> frozenset[int]:
        hparams, backbone = self._hparams_given
        return frozenset((id(hparams), id(backbone)))

    @contextmanager
    def _own_draws(self) -> Iterator[None]:
        """NumPy's and Python's global generators in this run's states, and back."""
        before = (np.random.get_state(), random.getstate())
        np.random.set_state(self._states[0])
        random.setstate(self._states[1])
        try:
            yield
        finally:
            self._states = (np.random.get_state(), random.getstate())
            np.random.set_state(before[0])
            random.setstate(before[1])

    @override
    def get_extra_state(self) -> Tensor:
        kept = {"draws": encoded(self._states, frozenset(), "draws")}
        if self.inner is not None:
            kept["attributes"] = attributes_of(self.inner, self._constants())
        content = BytesIO()
        torch.save(kept, content)
        return torch.frombuffer(bytearray(content.getvalue()), dtype=torch.uint8)

    @override
    def set_extra_state(self, state: Tensor) -> None:
        content = BytesIO(state.cpu().numpy().tobytes())
        kept = torch.load(content, weights_only=True, map_location="cpu")
        self._states = decoded(kept["draws"], self._states)
        if self.inner is not None and "attributes" in kept:
            bring_back(self.inner, kept["attributes"])

    def _aliases(self) -> dict[str, str]:
        """Further names of parameters and buffers, by each the first one."""
        first: dict[int, str] = {}
        aliases = {}
        if self.inner is not None:
            for name, value in self.inner.state_dict(keep_vars=True).items():
                if isinstance(value, Tensor) and first.setdefault(id(value), name) != name:
                    aliases[name] = first[id(value)]
        return aliases

    @override
    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        for alias, name in self._aliases().items():
            if f"{prefix}inner.{name}" in state_dict:
                state_dict[f"{prefix}inner.{alias}"] = state_dict[f"{prefix}inner.{name}"]
        for path, module in self.inner.named_modules() if self.inner is not None else ():
            for name, buffer in module.named_buffers(recurse=False):
                value = state_dict.get(".".join(filter(None, (f"{prefix}inner", path, name))))
                if value is not None and value.shape != buffer.shape:  # it grew when it was first used
                    setattr(module, name, torch.empty_like(value, device=buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *others)


def _without_aliases(
    module: DomainBedAlgorithm, state_dict: dict[str, Any], prefix: str, local_metadata: Any
) -> None:
    """What the class holds by several names is there once: safetensors refuses it otherwise."""
    for alias in module._aliases():
        del state_dict[f"{prefix}inner.{alias}"]


def _seeded_states() -> tuple[Any, Any]:
    """States of NumPy's and Python's generators, from torch's."""
    seed = int(torch.randint(2**31, ()))
    return np.random.RandomState(seed).get_state(), random.Random(seed).getstate()
