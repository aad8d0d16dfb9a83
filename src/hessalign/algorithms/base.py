"""What an algorithm is: a network, hyper-parameters, and either an objective or a step of its own."""

import warnings
from abc import ABC
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Adam, Optimizer

from hessalign.algorithms.hparams import HParams
from hessalign.algorithms.registry import register as register  # noqa: PLC0414 (mypy: exported from here, too)
from hessalign.algorithms.sharpness import Sharpness
from hessalign.checks import require_same_length, require_whole
from hessalign.exceptions import NoEffectWarning
from hessalign.head import CrossEntropy, DomainDerivatives, HeadDerivatives
from hessalign.inputs import as_domain_ids, as_tensor, read_domains

Optimizers = dict[str, Optimizer]
Metrics = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class DomainBatch:
    """A batch with the same number of samples from each source domain, sorted by domain.

    Samples may come in any order: they are sorted by domain, those of one domain keeping theirs. Ids are read
    for that, which on a GPU waits for the device; a loader that knows its batches to be in order makes them
    by ``balanced``. Domains that are named, and arrays that are no tensors, go through ``of``.

    Attributes:
        inputs: ``(E·B, ...)``: ``B`` samples of domain 0, then of domain 1 ...
        targets: Class ids, ``(E·B,)``.
        domains: Domain of each sample, 0 to E − 1, ``(E·B,)``.
        domain_count: ``E``.

    Raises:
        ValueError: If lengths differ, an id is not from 0 to E − 1, or the domains differ in their numbers of
            samples.

    Examples:
        >>> import torch
        >>> from hessalign.algorithms import DomainBatch
        >>> batch = DomainBatch(torch.randn(6, 3), torch.arange(6), torch.tensor([1, 0, 1, 0, 0, 1]), 2)
        >>> batch.targets
        tensor([1, 3, 4, 0, 2, 5])
    """

    inputs: Tensor
    targets: Tensor
    domains: Tensor
    domain_count: int

    def __post_init__(self) -> None:
        require_whole("domain_count", self.domain_count, least=1)
        for name in ("inputs", "targets", "domains"):
            if not isinstance(getattr(self, name), Tensor):
                raise ValueError(
                    f"{name}: must be a tensor, got {type(getattr(self, name)).__name__}; "
                    "DomainBatch.of takes arrays and sequences"
                )
        require_same_length(inputs=len(self.inputs), targets=len(self.targets), domains=len(self.domains))
        ids = as_domain_ids("domains", self.domains, len(self.targets)).detach().cpu()
        found, sizes = (each.tolist() for each in ids.unique(return_counts=True))
        if found != list(range(self.domain_count)):
            raise ValueError(
                f"domains: with domain_count {self.domain_count} a batch must hold every domain from 0 to "
                f"{self.domain_count - 1} and no other, got {', '.join(map(str, found))}"
            )
        if len(set(sizes)) > 1:
            raise ValueError(
                "domains: a batch must hold equally many samples of each domain, got "
                f"{', '.join(map(str, sizes))} of domains {', '.join(map(str, found))}"
            )
        if bool((ids[1:] < ids[:-1]).any()):
            order = ids.argsort(stable=True).to(self.domains.device)
            for name in ("inputs", "targets", "domains"):
                object.__setattr__(self, name, getattr(self, name)[order])

    @classmethod
    def of(cls, inputs: Any, targets: Any, domains: Any, names: Sequence[Any]) -> "DomainBatch":
        """A batch from arrays of any kind and domains by name.

        Args:
            inputs: ``(n, ...)`` numbers: tensor, array, data frame or sequence.
            targets: Class ids, ``(n,)``, likewise.
            domains: Name of each sample's domain, ``(n,)``, strings or integers, in any order.
            names: All source domains, once each, in the algorithm's order: the same for all batches of a
                training.

        Returns:
            The batch, its domains numbered in the order of the names.

        Raises:
            ValueError: As the class does, or if a domain is not among the names or a name is given twice.

        Examples:
            >>> import numpy as np
            >>> from hessalign.algorithms import DomainBatch
            >>> batch = DomainBatch.of(np.eye(4), [0, 1, 0, 1], ["b", "a", "a", "b"], names=("b", "a"))
            >>> batch.domains
            tensor([0, 0, 1, 1])
        """
        rows, labels = as_tensor("inputs", inputs), as_tensor("targets", targets)
        require_same_length(inputs=len(rows), targets=len(labels))
        given = read_domains("domains", domains, len(rows))
        known = list(names)
        if len(set(known)) < len(known):
            raise ValueError(f"names: each domain must be named once, got {known}")
        unknown = [name for name in given.names.tolist() if name not in known]
        if unknown:
            raise ValueError(f"domains: {unknown[0]!r} is not among the names {known}")
        places = np.array([known.index(name) for name in given.names.tolist()], dtype=np.int64)
        ids = torch.from_numpy(places[given.codes]).to(rows.device)
        return cls(rows, labels.to(rows.device), ids, len(known))

    @classmethod
    def balanced(cls, inputs: Tensor, targets: Tensor, domains: Tensor, domain_count: int) -> "DomainBatch":
        """A batch that is known to be in order; nothing of it is read, so no device has to wait."""
        batch = object.__new__(cls)
        fields = {"inputs": inputs, "targets": targets, "domains": domains, "domain_count": domain_count}
        for name, value in fields.items():
            object.__setattr__(batch, name, value)
        return batch

    @property
    def samples_per_domain(self) -> int:
        """``B``."""
        return len(self.targets) // self.domain_count

    def by_domain(self, values: Tensor) -> tuple[Tensor, ...]:
        """Values of the samples, split by domain.

        Args:
            values: ``(E·B, ...)``, one for each sample in the batch's order.

        Returns:
            ``(B, ...)`` for each domain, in order.

        Raises:
            ValueError: If there is not one for each sample.
        """
        require_same_length(values=len(values), targets=len(self.targets))
        blocks: tuple[Tensor, ...] = values.split(self.samples_per_domain)
        return blocks

    def to(self, device: torch.device) -> "DomainBatch":
        """The same batch on a device."""
        return DomainBatch.balanced(
            self.inputs.to(device), self.targets.to(device), self.domains.to(device), self.domain_count
        )

    def with_inputs(self, inputs: Tensor) -> "DomainBatch":
        """The same batch with other inputs, one for each sample in the batch's order."""
        require_same_length(inputs=len(inputs), targets=len(self.targets))
        return DomainBatch.balanced(inputs, self.targets, self.domains, self.domain_count)

    def domain_batches(self) -> list["DomainBatch"]:
        """One batch for each domain, with that domain alone."""
        columns = zip(*map(self.by_domain, (self.inputs, self.targets, self.domains)), strict=True)
        return [DomainBatch.balanced(inputs, targets, domains, 1) for inputs, targets, domains in columns]


class Algorithm(nn.Module, ABC):
    """A network with a rule to train it.

    A subclass implements ``objective`` (the loss of a batch, minimised by one Adam), or overrides ``step``
    and ``make_optimizers`` where its rule is more than that. Everything a run must remember between steps is
    a parameter or a buffer, so that ``state_dict`` holds all of it.

    Args:
        backbone: Maps inputs to features ``(n, width)``.
        width: Number of features.
        classes: Number of classes.
        domains: Number of source domains.
        hparams: Hyper-parameters, of the class that the algorithm's ``hparams_class`` names.

    Attributes:
        name: What ``register`` made it known by.
        reference_name: What seeds the runs of a sweep: DomainBed's spelling of the name.
        needs_domains: Source domains below which the rule compares nothing, so that training differs in
            nothing that matters from that of ``erm``.
        needs_samples: Samples of each domain in a batch below which the rule is not defined.
        penalty_weights: Hyper-parameters that weigh the penalty; without a penalty none. An algorithm that
            names any reports ``risk`` and ``penalty`` among its metrics.
        batched: Hyper-parameters in which runs that are trained together may differ, beside learning rate,
            weight decay and the like; None (default) where runs must be trained one by one. When they must:
            ``batched_hparams``.
        hparams_class: The class of the algorithm's hyper-parameters.
        extra_input_channels: Channels that the rule adds to the images.
        needs_images: Whether the rule works on images only, not on feature vectors.
        needs_trainable_backbone: Whether the rule trains the backbone in a way that a bare head on frozen
            features has no use for.
        predicts_by_batch: Whether what is predicted of a sample depends on the others of its batch.
        needs_one_process: Whether several processes cannot share an update.
        compares_features: Whether the penalty depends on the features alone, so that without a backbone to
            train it changes nothing.
        averages_itself: Whether the network that predicts is a mean over training.
        can_probe: Whether the rule can train with backbones that are held fast.
        sets_in: Hyper-parameters that tell after how many steps something begins, and what, in words.
        sharpness: Where the gradient is taken, by the step of this class; None (default) for where the
            network is.
        steps_done: Number of updates. It is kept in ``state_dict``, and on the host: a rule that depends on
            it must not make the device wait.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from torch.nn.functional import cross_entropy
        >>> from hessalign.algorithms import Algorithm, DomainBatch, HParams
        >>> class Plain(Algorithm):
        ...     hparams_class = HParams
        ...
        ...     def objective(self, batch):
        ...         loss = cross_entropy(self(batch.inputs), batch.targets)
        ...         return loss, {"loss": loss.detach()}
        >>> plain = Plain(nn.Identity(), 3, classes=2, domains=2, hparams=HParams(lr=0.1))
        >>> targets, domains = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
        >>> batch = DomainBatch(torch.eye(3)[targets], targets, domains, 2)
        >>> optimizers = plain.make_optimizers()
        >>> first, second = (plain.update(batch, optimizers)["loss"] for _ in range(2))
        >>> bool(second < first)
        True
    """

    name: ClassVar[str]
    reference_name: ClassVar[str]
    needs_domains: ClassVar[int] = 1
    needs_samples: ClassVar[int] = 1
    penalty_weights: ClassVar[tuple[str, ...]] = ()
    batched: ClassVar[tuple[str, ...] | None] = None
    hparams_class: ClassVar[type[HParams]] = HParams
    extra_input_channels: ClassVar[int] = 0
    needs_images: ClassVar[bool] = False
    needs_trainable_backbone: ClassVar[bool] = False
    predicts_by_batch: ClassVar[bool] = False
    needs_one_process: ClassVar[bool] = False
    compares_features: ClassVar[bool] = False
    averages_itself: ClassVar[bool] = False
    can_probe: ClassVar[bool] = True
    sets_in: ClassVar[tuple[tuple[str, str], ...]] = ()

    def __init__(self, backbone: nn.Module, width: int, classes: int, domains: int, hparams: HParams) -> None:
        super().__init__()
        self.backbone = backbone
        self.width = width
        self.classes = classes
        self.domains = domains
        self.head = self.make_head()
        self.hparams = hparams
        self.steps_done = 0
        self._is_checked = False
        self.backward: Callable[[Tensor], None] = torch.Tensor.backward
        self.sharpness: Sharpness | None = None
        self.build()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "forgets_moments" in vars(cls):  # what resets_optimizer was called; plug-ins may say it so
            cls.resets_optimizer = vars(cls)["forgets_moments"]  # type: ignore[method-assign]

    @classmethod
    def batched_hparams(cls, hparams: HParams) -> tuple[str, ...] | None:
        """Hyper-parameters in which runs that are trained together may differ: the class's ``batched``.

        Runs can be trained together where ``step`` and ``forward`` are this class's own and ``objective`` is
        a function of the batch, parameters, buffers and hyper-parameters that draws no random number and
        whose course does not depend on their values: then ``torch.func.vmap`` computes it for many runs at
        once, the named hyper-parameters being scalar tensors.

        Args:
            hparams: Hyper-parameters of a run.

        Returns:
            Names of hyper-parameters; None where runs must be trained one by one.
        """
        return cls.batched

    def build(self) -> None:
        """Add modules and buffers beyond backbone and head; nothing by default."""

    def make_head(self) -> nn.Linear:
        """The linear classifier."""
        return nn.Linear(self.width, self.classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits ``(n, C)``, as the trained algorithm predicts them."""
        logits: Tensor = self.head(self.backbone(inputs))
        return logits

    def make_optimizers(self) -> Optimizers:
        """The optimisers of ``step``, by name."""
        return {"main": self.adam(self.parameters())}

    def adam(self, parameters: Iterable[nn.Parameter]) -> Adam:
        """Adam with the hyper-parameters' learning rate and L2 weight decay."""
        return Adam(parameters, lr=self.hparams.lr, weight_decay=self.hparams.weight_decay)

    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        """Loss of a batch, and what else is worth reporting.

        Args:
            batch: Samples of all source domains.

        Returns:
            Scalar loss, and detached scalars by name.
        """
        raise NotImplementedError(f"{type(self).__name__} implements neither objective nor step")

    def domain_features(self, batch: DomainBatch) -> Tensor:
        """Features ``(E·B, width)`` of a batch whose domains pass through the backbone one by one.

        That is the rule of DomainBed for the algorithms that use it, and it matters where a BatchNorm is
        trained: each domain is then normalised by statistics of its own. Everywhere else it is the same as
        one pass, which is what is done.

        Returns:
            ``(E·B, width)``, in the batch's order.
        """
        if not uses_batch_statistics(self.backbone):
            features: Tensor = self.backbone(batch.inputs)
            return features
        return torch.cat([self.backbone(inputs) for inputs in batch.by_domain(batch.inputs)])

    def resets_optimizer(self) -> bool | Tensor:
        """Whether Adam begins anew with the step that is about to be done; never by default.

        A tensor only where ``batched_hparams`` are tensors.

        Returns:
            Whether it does; a tensor only where ``batched_hparams`` are tensors.
        """
        return False

    def lr_from_now(self) -> float | Tensor | None:
        """Learning rate of the Adam that begins anew with this step; None (default) for the one it has.

        Returns:
            The rate; a tensor only where ``batched_hparams`` are tensors.
        """
        return None

    def no_effect(self) -> str | None:
        """Why the rule has nothing to do with these hyper-parameters and source domains, or None."""
        if self.domains < self.needs_domains:
            return (
                f"algorithm: {known_as(self)} compares source domains, of which there is {self.domains} "
                "here: it has nothing to compare, and trains on the risk alone; it needs at least "
                f"{self.needs_domains}"
            )
        if self.compares_features and not self.trains_features():
            return (
                f"algorithm: the penalty of {known_as(self)} depends on the features alone, and this "
                "backbone has nothing to train that could change them: it trains on the risk alone, as erm "
                "does; on frozen features choose the backbone adapter:linear or adapter:mlp, or another "
                "algorithm"
            )
        return None

    def trains_features(self) -> bool:
        """Whether the backbone has parameters to train."""
        return any(parameter.requires_grad for parameter in self.backbone.parameters())

    def check_start(self) -> None:
        """What is to be known before any work: called by a run that begins, and by the first update.

        Raises:
            ValueError: If the rule is not defined for batches of the hyper-parameters' size.
        """
        if self._is_checked:
            return
        self._check_samples("batch_size", self.hparams.batch_size)
        self._is_checked = True
        reason = self.no_effect()
        if reason is not None:
            warnings.warn(reason, NoEffectWarning, stacklevel=3)

    def step(self, batch: DomainBatch, optimizers: Optimizers) -> Metrics:
        """One update.

        Args:
            batch: Samples of all source domains.
            optimizers: Those that ``make_optimizers`` made.

        Returns:
            Detached scalars by name, the loss among them.
        """
        if self.resets_optimizer():
            reset(optimizers["main"], self.lr_from_now())
        if self.sharpness is not None:
            loss, metrics = self.sharpness.minimise(self, batch, optimizers["main"])
        else:
            loss, metrics = self.objective(batch)
            self.minimise(loss, optimizers["main"])
        return {"loss": loss.detach(), **metrics}

    def update(self, batch: DomainBatch, optimizers: Optimizers) -> Metrics:
        """``step``, counted.

        Returns:
            What ``step`` reports.

        Raises:
            ValueError: If the batch has another number of domains than the algorithm, or too few samples of
                each for the rule to be defined.
        """
        if batch.domain_count != self.domains:
            raise ValueError(
                f"batch: must hold the {self.domains} source domains that {known_as(self)} was made for, "
                f"got {batch.domain_count}"
            )
        self._check_samples("batch", batch.samples_per_domain)
        self.check_start()
        metrics = self.step(batch, optimizers)
        self.steps_done += 1
        return metrics

    def minimise(self, loss: Tensor, *optimizers: Optimizer) -> None:
        """One step of the optimisers on the gradient of the loss, all other gradients discarded."""
        self.zero_grad()
        self.backward(loss)
        for optimizer in optimizers:
            optimizer.step()

    def _check_samples(self, argument: str, samples: int) -> None:
        if samples < self.needs_samples:
            raise ValueError(
                f"{argument}: {known_as(self)} needs at least {self.needs_samples} samples of each domain in "
                f"a batch, got {samples}"
            )

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}steps_done"] = torch.tensor(
            self.steps_done, device=next(self.parameters()).device
        )

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        steps = state_dict.pop(f"{prefix}steps_done", None)
        if steps is None:
            missing_keys.append(f"{prefix}steps_done")
        else:
            self.steps_done = int(steps)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def known_as(algorithm: Algorithm) -> str:
    """The algorithm's registered name, or its class's where it is not registered."""
    return getattr(algorithm, "name", type(algorithm).__name__)


def uses_batch_statistics(network: nn.Module) -> bool:
    """Whether a sample's features depend on the others of its batch, by a BatchNorm that is not frozen."""
    return any(
        isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
        for module in network.modules()
    )


def cross_entropies(logits: Tensor, batch: DomainBatch) -> Tensor:
    """Mean cross-entropy ``R_e`` of each domain, ``(E,)``."""
    losses = F.cross_entropy(logits, batch.targets, reduction="none")
    return losses.view(batch.domain_count, -1).mean(1)


def head_derivatives(features: Tensor, logits: Tensor, batch: DomainBatch) -> DomainDerivatives:
    """Derivatives of each domain's mean cross-entropy, in float32 at least; values are not checked.

    Unlike [from_logits][hessalign.head.HeadDerivatives.from_logits] it never looks at a value:
    that would make a GPU wait, and runs that are trained together do not have a single one.

    Returns:
        Those of the domains, in order.
    """
    derivatives = HeadDerivatives.from_checked(features, logits, batch.targets, CrossEntropy())
    return DomainDerivatives(derivatives, [batch.samples_per_domain] * batch.domain_count)


def reset(optimizer: Optimizer, lr: float | Tensor | None = None) -> None:
    """Forget the moments, as if the optimiser had just been made.

    Args:
        optimizer: What is reset.
        lr: Its learning rate from now on; None (default) for the one it has.
    """
    optimizer.state.clear()
    if lr is not None:
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1)  # the head may have a rate of its own
