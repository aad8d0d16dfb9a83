"""Random calls of the public API: the right number, or one sentence that names the argument.

What is taken, whatever its container, type, order or ids, gives what clean float64 tensors in sorted order
give. FUZZ tells how many calls of each function.
"""

import math
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

import hessalign as ha
from hessalign.algorithms import DomainBatch, algorithm_names, get_algorithm
from hessalign.cli.terminal import one_sentence
from hessalign.datasets import make_dataset
from hessalign.datasets.features_file import save_features
from hessalign.exceptions import HessalignWarning

CALLS = int(os.environ.get("FUZZ", "130" if os.environ.get("CI") else "13"))
"""Of each function."""

LOSSES: dict[str, str | ha.HeadLoss] = {
    "classes": "cross_entropy",
    "probabilities": "cross_entropy",
    "labels": "binary_cross_entropy",
    "targets": ha.SquaredError(),
}


@dataclass(frozen=True)
class Data:
    """What a penalty or a report gets, and what clean data would be."""

    features: Any
    logits: Any
    targets: Any
    domains: Any
    loss: str | ha.HeadLoss
    clean: tuple[Tensor, Tensor, Tensor, Tensor] | None
    tensors: bool = True
    twists: tuple[str, ...] = ()

    @property
    def arguments(self) -> tuple[Any, Any, Any, Any]:
        return self.features, self.logits, self.targets, self.domains


@dataclass(frozen=True)
class Attempt:
    """A call, what the same call on clean data gives, and which arguments it may blame."""

    call: Callable[[], Any]
    reference: Callable[[], Any]
    names: tuple[str, ...]
    must_work: bool
    told: dict[str, Any] = field(default_factory=dict)


def clean_data(random: np.random.Generator) -> tuple[str, tuple[Tensor, Tensor, Tensor, Tensor]]:
    kind = random.choice(list(LOSSES))
    domains = int(random.integers(2, 5))
    sizes = random.integers(2, 8, domains)
    samples, width, outputs = int(sizes.sum()), int(random.integers(1, 6)), int(random.integers(1, 5))
    if kind in ("classes", "probabilities"):
        outputs = max(2, outputs)
    features = torch.from_numpy(random.normal(size=(samples, width)))
    logits = torch.from_numpy(random.normal(size=(samples, outputs)))
    targets = {
        "classes": torch.from_numpy(random.integers(0, outputs, samples)),
        "probabilities": torch.from_numpy(random.dirichlet(np.ones(outputs), samples)),
        "labels": torch.from_numpy(random.integers(0, 2, (samples, outputs)).astype(float)),
        "targets": torch.from_numpy(random.normal(size=(samples, outputs))),
    }[kind]
    return kind, (features, logits, targets, torch.arange(domains).repeat_interleave(torch.from_numpy(sizes)))


def rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype).double() if values.is_floating_point() else values


CONTAINERS: dict[str, Callable[[Tensor], Any]] = {
    "array": lambda values: values.float().numpy() if values.dtype == torch.bfloat16 else values.numpy(),
    "big-endian": lambda values: values.double().numpy().astype(">f8"),
    "list": lambda values: values.tolist(),
    "polars": lambda values: (pl.DataFrame if values.ndim > 1 else pl.Series)(values.double().numpy()),
    "strided": lambda values: torch.stack([values, values], dim=-1)[..., 0],
    "gradient": lambda values: values.clone().requires_grad_(),
}
DOMAINS: dict[str, Callable[[Tensor], Any]] = {
    "far apart": lambda ids: 10**9 * ids - 7,
    "small type": lambda ids: ids.to(torch.int8),
    "array": lambda ids: ids.numpy().astype(np.uint16),
    "list": lambda ids: ids.tolist(),
    "series": lambda ids: pl.Series(ids.numpy()),
    "strings": lambda ids: [f"[/{letter}]*" for letter in np.array(list("abcd"))[ids.numpy()]],
    "string array": lambda ids: np.array(["a", "b", "c", "d"])[ids.numpy()],
}


def twisted(random: np.random.Generator) -> Data:
    """Good data in an unusual guise."""
    kind, values = clean_data(random)
    dtype = [torch.float64, torch.float32, torch.float16, torch.bfloat16][
        random.choice(4, p=[0.3, 0.4, 0.2, 0.1])
    ]
    features, logits, targets, domains = [rounded(each, dtype) for each in values[:3]] + [values[3]]
    if kind in ("probabilities", "labels", "targets"):
        targets = values[2]
    clean = (features, logits, targets, domains)
    order = (
        torch.from_numpy(random.permutation(len(domains)))
        if random.random() < 0.6
        else torch.arange(len(domains))
    )
    shown: list[Any] = [features.to(dtype)[order], logits.to(dtype)[order], targets[order]]
    twists, tensors = [str(dtype), "shuffled"], True
    for place in range(3):
        if random.random() < 0.25 and not (place == 2 and kind == "classes" and random.random() < 0.5):
            name = str(
                random.choice(["array", "list", "polars", "strided"] if place == 2 else list(CONTAINERS))
            )
            if name == "polars" and place == 2 and kind == "classes":
                name = "array"
            shown[place] = CONTAINERS[name](shown[place])
            tensors = tensors and name in ("strided", "gradient")
            twists.append(f"{place} {name}")
    ids: Any = domains[order]
    if random.random() < 0.4:
        name = str(random.choice(list(DOMAINS)))
        ids = DOMAINS[name](ids)
        tensors = tensors and name in ("far apart", "small type")
        twists.append(f"domains {name}")
    return Data(*shown, ids, LOSSES[kind], clean, tensors, tuple(twists))


def put(values: Tensor, number: float) -> Tensor:
    changed = values.double().clone()
    changed.view(-1)[len(changed.view(-1)) // 2] = number
    return changed


def spoiled(random: np.random.Generator) -> Data:
    """Data with something wrong, or so large or small that something may go wrong."""
    kind, (features, logits, targets, domains) = clean_data(random)
    data = Data(features, logits, targets, domains, LOSSES[kind], None)
    clean = (features, logits, targets, domains)
    short = slice(0, len(domains) - 1)
    single = features.dtype if random.random() < 0.5 else torch.float32

    def scaled(name: str, factor: float) -> Data:
        place = ["features", "logits"].index(name)
        large = list(clean)
        large[place] = (large[place] * factor).to(single)
        exact = [large[0].double(), large[1].double(), targets, domains]
        return replace(data, features=large[0], logits=large[1], clean=tuple(exact))

    spoils: dict[str, Callable[[], Data]] = {
        **{
            f"{name} {number}": (
                lambda name=name, number=number: replace(
                    data, **{name: put(dict(zip(("features", "logits"), clean, strict=False))[name], number)}
                )
            )
            for name in ("features", "logits")
            for number in (math.nan, math.inf, -math.inf)
        },
        **{
            f"{name} times {factor}": (lambda name=name, factor=factor: scaled(name, factor))
            for name in ("features", "logits")
            for factor in (1e-300, 1e-30, 1e10, 1e30, 1e80, 1e200, 1e300)
        },
        **{
            f"{name} short": (lambda name=name: replace(data, **{name: getattr(data, name)[short]}))
            for name in ("features", "logits", "targets", "domains")
        },
        **{
            f"{name} empty": (lambda name=name: replace(data, **{name: getattr(data, name)[:0]}))
            for name in ("features", "logits", "targets", "domains")
        },
        **{
            f"{name} is {wrong!r}": (lambda name=name, wrong=wrong: replace(data, **{name: wrong}))
            for name in ("features", "logits", "targets", "domains")
            for wrong in (None, "text", {"a": 1}, 3, object(), [[1.0], [2.0, 3.0]])
        },
        **{
            f"{name} complex": (
                lambda name=name: replace(data, **{name: getattr(data, name).to(torch.complex64)})
            )
            for name in ("features", "logits", "targets", "domains")
        },
        **{
            f"{name} sparse": (
                lambda name=name: replace(data, **{name: getattr(data, name).double().to_sparse()})
            )
            for name in ("features", "logits")
        },
        **{
            f"{name} on meta": (lambda name=name: replace(data, **{name: getattr(data, name).to("meta")}))
            for name in ("features", "logits", "targets", "domains")
        },
        "everything empty": lambda: replace(
            data, features=features[:0], logits=logits[:0], targets=targets[:0], domains=domains[:0]
        ),
        "features flat": lambda: replace(data, features=features[:, 0]),
        "features deep": lambda: replace(data, features=features[..., None]),
        "logits deep": lambda: replace(data, logits=logits[..., None]),
        "targets deep": lambda: replace(data, targets=targets[..., None, None]),
        "targets below": lambda: replace(data, targets=targets.long() - 9, loss="cross_entropy"),
        "targets above": lambda: replace(data, targets=torch.full_like(domains, 99), loss="cross_entropy"),
        "targets nan": lambda: replace(data, targets=put(logits, math.nan), loss=ha.SquaredError()),
        "targets huge": lambda: replace(
            data,
            targets=logits * 1e300,
            loss=ha.SquaredError(),
            clean=(features, logits, logits * 1e300, domains),
        ),
        "domains floating": lambda: replace(data, domains=domains.double()),
        "domains table": lambda: replace(data, domains=torch.stack([domains, domains], dim=1)),
        "domains mixed": lambda: replace(
            data, domains=["a", 1] * (len(domains) // 2) + ["a"] * (len(domains) % 2)
        ),
        "domains none among them": lambda: replace(data, domains=[None, *["a"] * (len(domains) - 1)]),
        "one domain": lambda: replace(
            data, domains=torch.zeros_like(domains), clean=(*clean[:3], torch.zeros_like(domains))
        ),
        "one sample": lambda: replace(
            data,
            features=features[:1],
            logits=logits[:1],
            targets=targets[:1],
            domains=domains[:1],
            clean=(features[:1], logits[:1], targets[:1], domains[:1]),
        ),
        "a lonely sample": lambda: replace(
            data,
            domains=torch.cat([domains[:-1], domains[-1:] + 1]),
            clean=(*clean[:3], torch.cat([domains[:-1], domains[-1:] + 1])),
        ),
        "no width": lambda: replace(data, features=features[:, :0], clean=(features[:, :0], *clean[1:])),
        "no output": lambda: replace(data, logits=logits[:, :0]),
        "an unknown loss": lambda: replace(data, loss=str(random.choice(["hinge", "", "CROSS_ENTROPY"]))),
        "a loss of another kind": lambda: replace(data, loss=[1]),  # type: ignore[arg-type]
        "constant": lambda: replace(
            data, features=torch.ones_like(features), clean=(torch.ones_like(features), *clean[1:])
        ),
        "certain": lambda: scaled("logits", 1e4),
    }
    name = str(random.choice(list(spoils)))
    return replace(spoils[name](), twists=(name,), tensors=False)


def make_data(random: np.random.Generator) -> Data:
    data = twisted(random) if random.random() < 0.5 else spoiled(random)
    return data if "on meta" not in data.twists[0] else twisted(random)


BATCH = ("features", "logits", "targets", "domains")
SETTINGS = ("method", "alpha", "beta", "probes", "expected", "centre", "detach_centre", "reduction", "loss")


def odd_settings(random: np.random.Generator) -> dict[str, Any]:
    """Perhaps one that is not allowed."""
    if random.random() < 0.8:
        return {}
    name, values = [
        ("alpha", (-5, math.nan, math.inf, "1", None, True, 10**400, 1j)),
        ("beta", (-1e-9, "0", [], math.nan)),
        ("probes", (0, -1, True, 2.5, "3", None, math.nan)),
        ("expected", ("no", 1, None)),
        ("centre", ("mean", None, 3)),
        ("detach_centre", ("no", 0, None)),
        ("reduction", ("max", None, ("mean",))),
        ("method", ("newton", None, 7)),
    ][random.integers(8)]
    return {name: values[random.integers(len(values))]}


def alignment(random: np.random.Generator, _: Path) -> Attempt:
    data, odd = make_data(random), odd_settings(random)
    method = str(random.choice(["gradient", "hgp", "hutchinson", "diagonal", "frobenius", "spectral"]))
    settings = {
        "method": method,
        "alpha": 0.0 if method == "gradient" else float(random.choice([0.0, 0.5])),
        "beta": np.float32(0.25),
        "detach_centre": bool(random.random() < 0.5),
        "reduction": str(random.choice(["mean", "sum"])),
        "loss": data.loss,
        **({"probes": np.int64(3), "expected": True} if method == "hutchinson" else {}),
        **odd,
    }

    def run(values: tuple[Any, ...]) -> Tensor:
        return ha.HessianAlignment(**settings)(*values)

    good = data.tensors and not odd
    return Attempt(
        lambda: run(data.arguments),
        lambda: run(data.clean or ()),
        BATCH + SETTINGS,
        good,
        {"data": data, **settings},
    )


def flatness(random: np.random.Generator, _: Path) -> Attempt:
    data = make_data(random)
    odd: dict[str, Any] = {}
    if random.random() < 0.2:
        odd = [{"gamma": -1}, {"gamma": "1"}, {"gamma": math.nan}, {"part": "half"}, {"reduction": 1}][
            random.integers(5)
        ]
    settings = {"gamma": 0.5, "part": str(random.choice(["whole", "off_diagonal"])), "loss": data.loss, **odd}

    def run(values: tuple[Any, ...]) -> Tensor:
        return ha.HessianFlatness(**settings)(*values)

    names = (*BATCH, "gamma", "part", "reduction", "loss")
    return Attempt(
        lambda: run(data.arguments),
        lambda: run(data.clean or ()),
        names,
        data.tensors and not odd,
        {"data": data, **settings},
    )


def derivatives(random: np.random.Generator, _: Path) -> Attempt:
    """Over one whole batch, whatever its domains."""
    data = make_data(random)
    what = str(random.choice(["gradient", "diagonal", "gradient_variance", "hessian"]))

    def run(values: tuple[Any, ...]) -> Tensor:
        found: Tensor = getattr(ha.HeadDerivatives.from_logits(*values[:3], loss=data.loss), what)()
        return found

    blamed = data.tensors or not any(word in data.twists[0] for word in ("domain", "lonely"))
    return Attempt(
        lambda: run(data.arguments),
        lambda: run(data.clean or data.arguments),
        (*BATCH[:3], "loss"),
        data.tensors,
        {"data": data, "what": what, "blamed": blamed},
    )


def distance(random: np.random.Generator, _: Path) -> Attempt:
    data = make_data(random)
    norm = ["frobenius", "spectral", "nuclear", None][random.choice(4, p=[0.45, 0.45, 0.05, 0.05])]

    def run(values: tuple[Any, ...]) -> Tensor:
        whole = ha.HeadDerivatives.from_logits(*values[:3], loss=data.loss)
        half = max(1, len(whole) // 2)
        parts = whole.split([half, len(whole) - half]) if len(whole) > half else [whole, whole]
        return ha.hessian_distance(*parts, norm=norm)  # type: ignore[arg-type]

    unordered = replace(data, clean=None) if "shuffled" in data.twists else data
    # Halves are of the batch as it is: put the clean one into its order.
    if "shuffled" in data.twists:
        return Attempt(
            lambda: run(data.arguments),
            lambda: run(in_order_of(data)),
            (*BATCH[:3], "loss", "norm"),
            data.tensors and norm in ("frobenius", "spectral"),
            {"data": unordered, "norm": norm},
        )
    return Attempt(
        lambda: run(data.arguments),
        lambda: run(data.clean or data.arguments),
        (*BATCH[:3], "loss", "norm"),
        False,
        {"data": data, "norm": norm},
    )


def in_order_of(data: Data) -> tuple[Tensor, ...]:
    """The same values in float64, in the order in which they are given."""

    def plain(values: Any) -> Tensor:
        found = (
            values.detach()
            if isinstance(values, Tensor)
            else torch.tensor(np.asarray(values, dtype=np.float64))
        )
        return found.double()

    targets = plain(data.targets)
    assert data.clean is not None
    return plain(data.features), plain(data.logits), targets.to(data.clean[2].dtype), data.clean[3]


def report(random: np.random.Generator, _: Path) -> Attempt:
    data = twisted(random) if random.random() < 0.5 else spoiled(random)
    odd: dict[str, Any] = {}
    if random.random() < 0.2:
        odd = [
            {"names": ["a"]},
            {"names": "ab"},
            {"names": [1, 2, 3, 4]},
            {"radius": 0},
            {"radius": "1"},
            {"level": 1.0},
            {"replicates": -1},
            {"replicates": 2.5},
            {"eigenvalues": 0},
            {"top_samples": None},
            {"seed": -1},
            {"output_names": ["x"] * 9},
        ][random.integers(12)]
    settings = {"loss": data.loss, "replicates": 0, "eigenvalues": 2, "top_samples": 2, **odd}

    def run(values: tuple[Any, ...]) -> list[float]:
        found = ha.alignment_report(*values, **settings)
        numbers: list[float] = []
        for name in ("distances", "parts", "eigenvalues"):
            numbers += numbers_of(found.to_frame(name))
        attributes = found.to_frame("attributes").filter(
            pl.col("attribute") != "confidence", pl.col("attribute") != "curvature"
        )
        (
            numbers_of(found.to_frame("plane")),
            numbers_of(found.to_frame("samples")),
            numbers_of(found.to_frame("groups")),
        )
        return [*numbers, *numbers_of(attributes.sort("attribute", maintain_order=True).select("effect"))]

    names = (
        "features",
        "logits",
        "y",
        "domains",
        "names",
        "output_names",
        "radius",
        "level",
        "replicates",
        "eigenvalues",
        "top_samples",
        "seed",
        "loss",
    )
    good = "shuffled" in data.twists and not odd
    return Attempt(
        lambda: run(data.arguments), lambda: run(data.clean or ()), names, good, {"data": data, **odd}
    )


def features_file(random: np.random.Generator, folder: Path) -> Attempt:
    """What is saved is what is read."""
    data = make_data(random)
    path: Any = folder / f"{random.integers(10**9)}.safetensors"
    if random.random() < 0.2:
        path = [str(path), None, 3][random.integers(3)]
    labels = (
        data.targets
        if data.loss == "cross_entropy"
        else torch.arange(len(data.clean[3]) if data.clean else 0) % 2
    )

    def run(target: Any, values: tuple[Any, ...]) -> list[float]:
        save_features(target, *values)
        try:
            dataset = make_dataset("features_file", Path(target))
            rows = [
                torch.stack([domain.plain[index][0] for index in range(len(domain))])
                for domain in dataset.domains
            ]
            classes = [domain.targets for domain in dataset.domains]
            return [
                *sorted(torch.cat(rows).double().flatten().tolist()),
                *sorted(torch.cat(classes).tolist()),
            ]
        finally:
            Path(target).unlink()

    def clean() -> list[float]:
        assert data.clean is not None
        return [
            *sorted(data.clean[0].float().double().flatten().tolist()),
            *sorted(np.asarray(labels.detach() if isinstance(labels, Tensor) else labels).tolist()),
        ]

    names = ("path", "features", "labels", "domains", "class_names", "domain_names", "views")
    return Attempt(
        lambda: run(path, (data.features, labels, data.domains)),
        clean,
        names,
        False,
        {"data": data, "path": path},
    )


def batch(random: np.random.Generator, _: Path) -> Attempt:
    """Samples by domain, whatever the order that they came in."""
    count, each = int(random.integers(1, 5)), int(random.integers(1, 5))
    domains = torch.arange(count).repeat_interleave(each)
    order = torch.from_numpy(random.permutation(len(domains)))
    inputs, targets = torch.from_numpy(random.normal(size=(len(domains), 3))), torch.arange(len(domains))
    given: dict[str, Any] = {
        "inputs": inputs[order],
        "targets": targets[order],
        "domains": domains[order],
        "domain_count": count,
    }
    spoil = random.choice(["", "", "count", "short", "gap", "floating", "kind", "uneven"])
    if spoil == "count":
        given["domain_count"] = [count + 1, 0, -1, "2", None, 2.5][random.integers(6)]
    elif spoil == "short":
        name = ["inputs", "targets", "domains"][random.integers(3)]
        given[name] = given[name][:-1]
    elif spoil == "gap":
        given["domains"] = given["domains"] + 1
    elif spoil == "floating":
        given["domains"] = given["domains"].double()
    elif spoil == "kind":
        name = ["inputs", "targets", "domains"][random.integers(3)]
        given[name] = [None, "text", 3, {}][random.integers(4)]
    elif spoil == "uneven":
        given["domains"] = torch.cat([given["domains"][:-1], torch.zeros(1, dtype=torch.long)])

    def run() -> list[float]:
        made = DomainBatch(**given)
        numbers: list[float] = []
        for rows, labels in zip(made.by_domain(made.inputs), made.by_domain(made.targets), strict=True):
            place = labels.argsort()
            numbers += [*rows[place].flatten().tolist(), *labels[place].tolist()]
        return numbers

    def clean() -> list[float]:
        assert not spoil or (spoil == "uneven" and bool((given["domains"] == domains[order]).all()))
        rows = inputs.split(each)
        return [
            number
            for part, labels in zip(rows, targets.split(each), strict=True)
            for number in (*part.flatten().tolist(), *labels.tolist())
        ]

    return Attempt(run, clean, tuple(given), not spoil, {"spoil": spoil, **given})


def hparams(random: np.random.Generator, _: Path) -> Attempt:
    """Values are kept, or refused by name."""
    kind = get_algorithm(str(random.choice(algorithm_names()))).hparams_class
    name = str(random.choice([*kind.model_fields, "unknown"]))
    value = [
        0,
        1,
        0.5,
        -1,
        1e300,
        1e-300,
        math.nan,
        math.inf,
        "0.25",
        "text",
        None,
        True,
        [],
        np.int64(2),
        np.float32(0.5),
    ][random.integers(15)]
    search_space: Any = ["small", "large", "domain_net", "features", "huge", None, 3][
        random.choice(7, p=[0.23, 0.23, 0.22, 0.2, 0.04, 0.04, 0.04])
    ]

    def run() -> list[float]:
        made = kind.with_defaults(search_space, {name: value})
        return [number for number in made.model_dump().values() if isinstance(number, int | float)]

    def clean() -> list[float]:
        plain = kind.with_defaults(search_space).model_dump()
        assert name in plain
        plain[name] = value if isinstance(plain[name], str) else float(value)
        return [number for number in plain.values() if isinstance(number, int | float)]

    return Attempt(
        run,
        clean,
        ("search_space", *kind.model_fields, "unknown"),
        False,
        {"kind": kind, "name": name, "value": value, "search_space": search_space},
    )


FUNCTIONS = (alignment, flatness, derivatives, distance, report, features_file, batch, hparams)


def numbers_of(values: Any) -> list[float]:
    """All numbers, which must be finite."""
    if isinstance(values, Tensor):
        found = values.detach().double().flatten().tolist()
    elif isinstance(values, pl.DataFrame):
        found = [
            number
            for row in values.select(pl.col(pl.Float64)).iter_rows()
            for number in row
            if number is not None
        ]
    else:
        found = list(map(float, values))
    assert all(map(math.isfinite, found)), "not finite"
    return found


def tolerance(attempt: Attempt) -> float:
    data = attempt.told.get("data")
    narrow = data is not None and any(
        isinstance(values, Tensor) and values.dtype != torch.float64
        for values in (data.features, data.logits)
    )
    return 2e-4 if narrow else 1e-7


def blamed(message: str) -> set[str]:
    """What a sentence begins with: names of arguments."""
    return set(message.partition(":")[0].replace(" and ", ", ").split(", ")) if ":" in message else set()


def assert_close(found: Iterable[float], expected: Iterable[float], within: float) -> None:
    first, second = np.array(list(found)), np.array(list(expected))
    assert first.shape == second.shape
    largest = float(np.abs(second).max(initial=0.0))
    np.testing.assert_allclose(first, second, rtol=within, atol=within * largest)


def check(attempt: Attempt) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HessalignWarning)
        try:
            found = numbers_of(attempt.call())
        except (ValueError, TypeError) as error:
            sentence = one_sentence(error) if isinstance(error, ValidationError) else str(error)
            assert blamed(sentence) <= {*attempt.names}, sentence
            assert blamed(sentence), sentence
            assert not attempt.must_work, sentence
            return
        assert_close(found, numbers_of(attempt.reference()), tolerance(attempt))


@pytest.mark.parametrize("function", [pytest.param(each, id=each.__name__) for each in FUNCTIONS])
def test_every_call_is_right_or_one_sentence(function: Callable[..., Attempt], tmp_path: Path) -> None:
    failures = []
    for seed in range(CALLS):
        attempt = function(np.random.default_rng([2026, FUNCTIONS.index(function), seed]), tmp_path)
        try:
            check(attempt)
        except Exception as error:  # all are collected, so that one run shows them all
            twists = attempt.told["data"].twists if "data" in attempt.told else attempt.told
            failures.append(f"{seed}: {twists}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    assert not failures, "\n".join([f"{len(failures)} of {CALLS}", *failures])
