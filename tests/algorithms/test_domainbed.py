"""Classes written for DomainBed, trained as they are."""

import copy
import random
from collections import deque
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hessalign.algorithms import DomainBatch, from_domainbed, hparam, registry
from hessalign.algorithms.domainbed import Classifier, Featurizer
from hessalign.algorithms.hparams import LogUniform
from hessalign.diagnostics.outputs import run_outputs
from hessalign.exceptions import NoEffectWarning
from hessalign.training import Machine, load_trained, train
from hessalign.training.processes import check_spreadable
from tests.training.tiny_domains import TinyDomains, tiny_spec

CPU = Machine("cpu")


class MovingAverage:
    """A helper that is neither module nor tensor."""

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}
        self.updates = 0

    def update(self, name: str, value: Tensor) -> Tensor:
        self.values[name] = 0.5 * self.values.get(name, torch.zeros_like(value)) + 0.5 * value.detach()
        self.updates += 1
        return self.values[name]


class Written(nn.Module):
    """All that DomainBed's classes do, and a checkpoint must bear: two names for one network, a buffer that
    grows, counts in Python, an optimiser that is made anew, draws of NumPy, Python's random and torch."""

    def __init__(self, input_shape: Any, num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__()
        self.hparams = hparams
        self.featurizer = Featurizer(input_shape, hparams)
        self.classifier = Classifier(self.featurizer.n_outputs, num_classes, hparams["nonlinear_classifier"])
        self.network = nn.Sequential(self.featurizer, self.classifier)
        self.register_buffer("q", torch.Tensor())
        self.register_buffer("update_count", torch.tensor([0]))
        self.seen, self.recent = 0, deque([0.0], maxlen=3)
        self.average = MovingAverage()
        self.noise = np.random.default_rng(0)
        self.free = [nn.Parameter(torch.ones(2))]
        self.extra = torch.optim.SGD(self.free, lr=0.1, momentum=0.9)
        self.optimizer = self.adam()

    def adam(self) -> torch.optim.Adam:
        return torch.optim.Adam(
            self.network.parameters(), lr=self.hparams["lr"], weight_decay=self.hparams["weight_decay"]
        )

    def update(self, minibatches: list[tuple[Tensor, Tensor]], unlabeled: Any = None) -> dict[str, float]:
        if not len(self.q):
            self.q = torch.ones(len(minibatches))
        losses = torch.stack([F.cross_entropy(self.predict(x), y) for x, y in minibatches])
        draw = np.random.beta(2, 2) + random.random() + float(torch.rand(())) + self.noise.normal()
        self.q = self.q * (self.hparams["eta"] * losses.detach()).exp()
        mean = self.average.update("loss", losses.mean())
        loss = (losses * self.q / self.q.sum()).sum() * (1 + 0.01 * draw) + 0 * mean + sum(self.recent)
        loss = loss + (self.free[0] ** 2).sum() * losses.mean()
        self.seen += 1
        if self.seen == self.hparams["reset"]:
            self.optimizer = self.adam()
        for optimizer in (self.optimizer, self.extra):
            optimizer.zero_grad()
        loss.backward()
        for optimizer in (self.optimizer, self.extra):
            optimizer.step()
        self.recent.append(0.1 * loss.item())
        self.update_count += 1
        return {"loss": loss.item(), "draw": draw}

    def predict(self, x: Tensor) -> Tensor:
        return self.network(x)


HPARAMS = {"lr": 1e-2, "batch_size": 6, "eta": 0.1, "reset": 6}
MADE = from_domainbed(
    Written,
    "written_for_a_test",
    {"eta": hparam(0.01, LogUniform(-3, -1), reference_name="groupdro_eta"), "reset": 5},
)
CLASSES = registry._REGISTRY._classes
del CLASSES[MADE.name]


@pytest.fixture(autouse=True)
def _known_here_alone() -> None:
    CLASSES[MADE.name] = MADE  # forgotten after each test, like all that a test registers


class OwnNetwork(nn.Module):
    def __init__(self, input_shape: Any, num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(input_shape)), num_classes))
        self.optimizer = torch.optim.SGD(self.parameters(), lr=hparams["lr"])

    def update(self, minibatches: Any, unlabeled: Any = None) -> Any:
        x, y = (torch.cat(parts) for parts in zip(*minibatches, strict=True))
        loss = F.cross_entropy(self.net(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"nll": loss.item()}

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x)


def weights(folder: Path) -> dict[str, Tensor]:
    algorithm, _ = load_trained(folder)
    return algorithm.state_dict()


def same(one: Any, two: Any) -> bool:
    """Whether nested values are equal to the last bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and one == two


def spec(**changes: Any) -> Any:
    return tiny_spec(algorithm="written_for_a_test", hparams=HPARAMS, evaluate_every=4, **changes)


def test_updates_are_those_of_the_class_itself() -> None:
    """The same object driven by hand, as DomainBed's own loop drives it."""
    torch.manual_seed(0)
    algorithm = MADE(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), 3, 2, 2, MADE.hparams_class(**HPARAMS))
    batches = [
        DomainBatch(torch.randn(12, 2, 2), torch.randint(0, 2, (12,)), torch.arange(12) // 6, 2)
        for _ in range(4)
    ]
    algorithm(batches[0].inputs)
    own, states = copy.deepcopy(algorithm.inner), algorithm._states
    before = np.random.get_state()[1].copy(), random.getstate()
    torch.manual_seed(1)
    found = [algorithm.update(batch, algorithm.make_optimizers()) for batch in batches]
    assert (np.random.get_state()[1] == before[0]).all()
    assert random.getstate() == before[1]  # the program's own draws are not touched
    torch.manual_seed(1)
    np.random.set_state(states[0])
    random.setstate(states[1])
    for batch, metrics in zip(batches, found, strict=True):
        pairs = list(zip(batch.by_domain(batch.inputs), batch.by_domain(batch.targets), strict=True))
        assert {name: float(value) for name, value in metrics.items()} == pytest.approx(own.update(pairs))
    assert all(
        torch.equal(one, two) for one, two in zip(own.parameters(), algorithm.parameters(), strict=True)
    )
    assert int(own.update_count) == algorithm.steps_done == 4


def test_a_run_resumes_to_the_last_bit(tmp_path: Path) -> None:
    dataset = TinyDomains()
    at_once = train(spec(steps=12), dataset, tmp_path / "one", CPU)
    train(spec(steps=5), dataset, tmp_path / "two", CPU)
    np.random.seed(7)  # what others draw between has no part in it
    random.seed(7)
    resumed = train(spec(steps=12), dataset, tmp_path / "two", CPU)
    assert at_once["accuracies"] == resumed["accuracies"]
    assert at_once["loss"] == resumed["loss"]
    found, expected = weights(tmp_path / "two"), weights(tmp_path / "one")
    assert found.keys() == expected.keys()
    kept = [torch.load(BytesIO(bytes(state.pop("_extra_state").tolist()))) for state in (found, expected)]
    assert torch.equal(
        *(torch.cat([value.flatten() for value in state.values()]) for state in (found, expected))
    )
    assert same(*kept)
    one, _ = load_trained(tmp_path / "one")
    inner = one.inner
    assert (inner.seen, inner.average.updates, len(inner.recent), len(inner.q)) == (12, 12, 3, 2)
    assert isinstance(inner.recent, deque)
    assert isinstance(inner.average, MovingAverage)
    assert inner.optimizer.state_dict()["state"][0]["step"] == 12 - 5  # the sixth step began anew
    assert inner.extra.state_dict()["state"][0]["momentum_buffer"].norm() > 0


def test_the_trained_class_predicts_and_is_reported_on(tmp_path: Path) -> None:
    dataset = TinyDomains()
    train(spec(steps=4), dataset, tmp_path / "run", CPU)
    algorithm, about = load_trained(tmp_path / "run")
    assert about.run.algorithm == "written_for_a_test"
    inputs = torch.stack([dataset.domains[0].plain[index][0] for index in range(4)])
    with torch.no_grad():
        assert torch.equal(algorithm(inputs), algorithm.inner.predict(inputs))
    outputs = run_outputs(algorithm, dataset, 4, torch.device("cpu"))
    assert outputs.features.shape[1] == algorithm.inner.classifier.in_features


def test_hyper_parameters_are_those_of_the_class() -> None:
    spaces = MADE.hparams_class.spaces("large")
    assert spaces["eta"].search == LogUniform(-3, -1)
    assert MADE.hparams_class.reference_names()["eta"] == "groupdro_eta"
    assert MADE.hparams_class().reset == 5
    assert (MADE.name, MADE.reference_name) == ("written_for_a_test", "Written")
    with pytest.raises(ValueError, match="eta"):
        MADE.hparams_class(eta=-1.0)


def test_a_network_of_its_own_is_told_and_one_process_does_it() -> None:
    made = from_domainbed(OwnNetwork, "own_network_of_a_test")
    algorithm = made(nn.Flatten(), 4, 2, 2, made.hparams_class(lr=0.1))
    batch = DomainBatch(torch.randn(8, 2, 2), torch.arange(8) % 2, torch.arange(8) // 4, 2)
    algorithm(batch.inputs)
    with pytest.warns(
        NoEffectWarning, match="own_network_of_a_test builds a network of its own, so the choice"
    ):
        metrics = algorithm.update(batch, algorithm.make_optimizers())
    assert metrics["loss"] == metrics["nll"]  # every record has a loss
    assert set(algorithm.state_dict()) == {
        "inner.net.1.weight",
        "inner.net.1.bias",
        "steps_done",
        "_extra_state",
    }
    with pytest.raises(ValueError, match="devices: an update of own_network_of_a_test cannot be shared"):
        check_spreadable(algorithm)
    with pytest.raises(ValueError, match="own_network_of_a_test has no head of its own"):
        run_outputs(algorithm, TinyDomains(), 2, torch.device("cpu"))


@pytest.mark.parametrize(
    ("attribute", "problem"),
    [
        (
            iter([1]),
            r"OwnNetwork.odd is a list_iterator, which a checkpoint cannot hold; allowed are numbers",
        ),
        ({"a": [object()]}, r"OwnNetwork.odd\['a'\]\[0\] is a object, which a checkpoint cannot hold"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_any_work(attribute: object, problem: str) -> None:
    class Odd(OwnNetwork):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.odd = attribute

    Odd.__name__ = "OwnNetwork"
    made = from_domainbed(Odd, f"odd_{type(attribute).__name__}_of_a_test")
    with pytest.raises(ValueError, match=problem):
        made(nn.Flatten(), 4, 2, 2, made.hparams_class())(torch.zeros(1, 2, 2))


def test_what_does_not_go_is_said() -> None:
    class NoPredict(nn.Module):
        def update(self, minibatches: Any) -> Any:
            return {}

    with pytest.raises(ValueError, match="algorithm: NoPredict has no method predict"):
        from_domainbed(NoPredict, "no_predict")
    with pytest.raises(ValueError, match="name: 'erm' is taken by another algorithm"):
        from_domainbed(OwnNetwork, "erm")
    with pytest.raises(ValueError, match="hparams: must be those that the class was given"):
        Featurizer((3, 8, 8), {})

    class Wrong(OwnNetwork):
        def update(self, minibatches: Any, unlabeled: Any = None) -> Any:
            return None

        def predict(self, x: Tensor) -> Tensor:
            return self.net(x)[:, 0]

    made = from_domainbed(Wrong, "wrong_of_a_test")
    algorithm = made(nn.Flatten(), 4, 2, 1, made.hparams_class())
    batch = DomainBatch(torch.randn(4, 2, 2), torch.arange(4) % 2, torch.zeros(4, dtype=torch.long), 1)
    with pytest.raises(ValueError, match=r"update of wrong_of_a_test must return numbers by name, got None"):
        algorithm.step(batch, {})
    with pytest.raises(
        ValueError, match=r"predict of wrong_of_a_test must return logits \(4, 2\), got shape \(4,\)"
    ):
        algorithm(batch.inputs)

    class MoreChannels(OwnNetwork):
        def __init__(
            self, input_shape: Any, num_classes: int, num_domains: int, hparams: dict[str, Any]
        ) -> None:
            super().__init__(input_shape, num_classes, num_domains, hparams)
            self.featurizer = Featurizer((1 + input_shape[0], *input_shape[1:]), hparams)

    made = from_domainbed(MoreChannels, "more_channels_of_a_test")
    with pytest.raises(ValueError, match=r"input_shape: the run's backbone takes \(2, 2\), got \(3, 2\)"):
        made(nn.Flatten(), 4, 2, 1, made.hparams_class())(batch.inputs)
