"""What two gloo processes find out about themselves; run once for all tests by torch.multiprocessing."""

import copy
import gc
import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

import hessalign as ha
from hessalign.algorithms import Algorithm, DomainBatch, algorithm_names, get_algorithm
from hessalign.backbones import Backbone
from hessalign.loop import gather_samples
from hessalign.training.batches import domain_batches
from hessalign.training.evaluation import outputs
from hessalign.training.processes import Processes
from tests.training.tiny_domains import InMemory, TinyDomains

COUNT, DOMAINS, SAMPLES, CLASSES, WIDTH, UPDATES = 2, 3, 5, 3, 6, 4
# Settings under which four updates meet everything that an algorithm does.
SETTINGS: dict[str, dict] = {
    "dann": {"gradient_penalty": 0.5, "mlp_dropout": 0.3, "generator_lr": 1e-2},
    "cdann": {"gradient_penalty": 0.5, "mlp_dropout": 0.3, "generator_lr": 1e-2},
    "irm": {"anneal_steps": 2},
    "vrex": {"anneal_steps": 2},
    "fishr": {"anneal_steps": 2},
    "arm": {"batch_size": 5},
    "hutchinson": {"variant": "domainbed", "probes": 3},
    "ib_erm": {"anneal_steps": 2},
    "ib_irm": {"irm_anneal_steps": 1, "ib_anneal_steps": 2},
    "eqrm": {"burn_in_steps": 2, "late_lr": 1e-2},
    "rdm": {"anneal_steps": 2, "late_lr": 1e-2},
    "trm": {"erm_steps": 2},
    "erm_plus_plus": {"linear_steps": 2, "linear_lr": 1e-2, "average_from": 3},
    "urm": {"discriminator_lr": 1e-2},
}


def network(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2),
        nn.ReLU(),
        nn.GroupNorm(2, 8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, WIDTH),
        nn.Tanh(),
    )


def make(name: str) -> Algorithm:
    torch.manual_seed(0)
    algorithm = get_algorithm(name)
    hparams = algorithm.hparams_class.with_defaults("large", {"lr": 1e-2, **SETTINGS.get(name, {})})
    backbone = Backbone(network(1 + algorithm.extra_input_channels), WIDTH, dropout=0.3)
    made = algorithm(backbone, WIDTH, CLASSES, DOMAINS, hparams).double().eval()
    made(torch.zeros(1, 1, 9, 9, dtype=torch.float64))  # layers that learn their input's size
    return made.train()


def batch(step: int) -> DomainBatch:
    """Fifteen rows, and five in each domain: neither divides by two."""
    generator = torch.Generator().manual_seed(step)
    domains = torch.arange(DOMAINS).repeat_interleave(SAMPLES)
    inputs = torch.randn(len(domains), 1, 9, 9, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, CLASSES, (len(domains),), generator=generator)
    return DomainBatch(inputs + 0.3 * domains.view(-1, 1, 1, 1), targets, domains, DOMAINS)


def history(algorithm: Algorithm) -> list[Tensor]:
    """Scalars, gradients and parameters of some updates, and the random numbers after them."""
    torch.manual_seed(1)
    optimizers = algorithm.make_optimizers()
    seen = []
    for step in range(UPDATES):
        metrics = algorithm.update(batch(step), optimizers)
        seen += [metrics[name] for name in sorted(metrics)]
        for value in algorithm.parameters():
            seen += [torch.tensor([]) if value.grad is None else value.grad.clone(), value.detach().clone()]
        seen += [value.double() for value in algorithm.buffers()]
    return [*seen, torch.rand(3)]


def difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    assert [value.shape for value in ours] == [value.shape for value in theirs]
    assert all(value.isfinite().all() for value in theirs)
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True) if a.numel())


def of_algorithm(name: str, processes: Processes) -> dict:
    alone, shared = make(name), make(name)
    processes.spread(shared)
    rows: list[int] = []
    for part in shared.modules():
        if isinstance(part, Backbone):
            part.network.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    expected, found = history(alone), history(shared)
    return {
        "difference": difference(found, expected),
        "moved": difference(list(alone.parameters()), list(make(name).parameters())),
        "most_rows": max(rows, default=0),
        "same_keys": list(alone.state_dict()) == list(shared.state_dict()),
    }


def second_derivatives(processes: Processes) -> dict:
    """The gradient's norm, differentiated, through backbone and inputs."""

    def gradients(algorithm: Algorithm) -> list[Tensor]:
        torch.manual_seed(2)
        data = batch(0)
        inputs = data.inputs.requires_grad_()
        risk = F.cross_entropy(algorithm(inputs), data.targets)
        first = torch.autograd.grad(risk, [inputs, *algorithm.parameters()], create_graph=True)
        norm = sum(value.square().sum() for value in first)
        return [*first, *torch.autograd.grad(norm, [inputs, *algorithm.parameters()])]

    shared = make("erm")
    processes.spread(shared)
    return {"difference": difference(gradients(copy.deepcopy(shared)), gradients(make("erm")))}


def network_that_draws(processes: Processes) -> dict:
    """Masks differ between the rows of two processes and between calls; the processes stay in step."""
    backbone = Backbone(nn.Dropout(0.5), 64)
    processes.spread(backbone)
    torch.manual_seed(0)
    first, second = backbone(torch.ones(2, 64)), backbone(torch.ones(2, 64))
    return {"masks": torch.cat([first, second]).tolist(), "next": float(torch.rand(()))}


def evaluation_mode(processes: Processes) -> dict:
    """One process alone may evaluate: nobody waits for the others."""
    shared = make("erm").eval()
    processes.spread(shared)
    inputs = batch(0).inputs
    if processes.is_first:
        assert torch.equal(shared(inputs), make("erm").eval()(inputs))
    return {}


def batches(processes: Processes) -> dict:
    sets = [domain.augmented for domain in TinyDomains().domains]
    whole = list(domain_batches(sets, 3, 0, range(2)))
    shares = domain_batches(sets, 3, 0, range(2), 0, processes.rank, processes.count)
    found = [processes.all_gather(share, 9) for share in shares]
    return {
        "same": all(
            torch.equal(getattr(a, part), getattr(b, part))
            for a, b in zip(found, whole, strict=True)
            for part in ("inputs", "targets", "domains")
        ),
        "rows": len(next(domain_batches(sets, 3, 0, range(1), 0, processes.rank, processes.count)).targets),
    }


def accuracies(processes: Processes) -> dict:
    generator = torch.Generator().manual_seed(0)
    samples = InMemory(torch.randn(150, 4, generator=generator), torch.arange(150) % 4)
    model, cpu = nn.Linear(4, 4), torch.device("cpu")
    torch.manual_seed(0)
    nn.init.normal_(model.weight)
    return {
        "shared": outputs(model, samples, cpu, 0, processes).accuracy(),
        "alone": outputs(model, samples, cpu).accuracy(),
        "same": torch.equal(
            outputs(model, samples, cpu, 0, processes).logits, outputs(model, samples, cpu).logits
        ),
        "none of its own": outputs(
            model, InMemory(samples.images[:3], samples.targets[:3]), cpu, 0, processes
        ).logits.shape,
        "empty": str(
            outputs(model, InMemory(torch.zeros(0, 4), torch.zeros(0)), cpu, 0, processes).accuracy()
        ),
    }


def failures(processes: Processes) -> dict:
    try:
        with processes.together():
            if processes.rank == 1:
                raise OSError("a.jpg: the image cannot be read")
    except OSError as error:
        return {"said": str(error)}
    return {"said": ""}


def agreement(processes: Processes) -> dict:
    model = nn.Linear(2, 2)
    nn.init.constant_(model.weight, float(processes.rank + 7))
    processes.broadcast(model)
    return {"weight": float(model.weight[0, 0])}


def gathered_penalty(processes: Processes) -> dict:
    """A loop of one's own under DistributedDataParallel, with shares of 9 and 6 samples."""
    penalty = ha.HessianAlignment("hgp", alpha=3.0, beta=5.0)

    def model() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, CLASSES)).double()

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = model()

        def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            features = self.layers[:2](inputs)
            return features, self.layers[2](features)

    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(15, 4, generator=generator, dtype=torch.float64)
    targets, domains = torch.arange(15) % CLASSES, torch.arange(15) % 2
    alone = Both()
    penalty(*alone(inputs), targets, domains).backward()
    own = slice(0, 9) if processes.is_first else slice(9, 15)
    shared = nn.parallel.DistributedDataParallel(Both())
    penalty(*gather_samples(*shared(inputs[own]), targets[own], domains[own])).backward()
    mean_of_shares = penalty(*alone(inputs[own]), targets[own], domains[own])
    return {
        "difference": difference(
            [value.grad for value in shared.parameters()], [value.grad for value in alone.parameters()]
        ),
        "without": float(mean_of_shares),
        "whole": float(penalty(*alone(inputs), targets, domains)),
    }


QUESTIONS: tuple[Callable[[Processes], dict], ...] = (
    second_derivatives,
    network_that_draws,
    evaluation_mode,
    batches,
    accuracies,
    failures,
    agreement,
    gathered_penalty,
)


def answer(rank: int, folder: str) -> None:
    """One process: leave its answers in the folder."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=COUNT)
    processes = Processes(rank, COUNT)
    answers = {name: of_algorithm(name, processes) for name in algorithm_names()}
    answers |= {question.__name__: question(processes) for question in QUESTIONS}
    (Path(folder) / f"{rank}.json").write_text(json.dumps(answers))
    # Gloo's threads abort a process that ends while they hold the last of a model's tensors.
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()
