# ruff: noqa: N803 (scikit-learn's names)
r"""Every head on the same domains, each left out in turn, and what the evidence says of them."""

import hashlib
import json
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from sklearn import config_context
from sklearn.base import clone
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.parallel import Parallel, delayed

from hessalign.alignment.penalty import READ_BY
from hessalign.checks import require_choice, require_path, require_whole
from hessalign.estimator.aligned import HessianAlignedClassifier
from hessalign.estimator.comparison import BASELINE, BEST_ON_SOURCES, HeadComparison
from hessalign.estimator.inputs import as_plain
from hessalign.estimator.penalised import FishrClassifier, GroupDROClassifier, IRMClassifier, VRExClassifier
from hessalign.estimator.reweighted import AFRClassifier, DFRClassifier, JTTClassifier
from hessalign.estimator.shift import Shift, shares_to_style, shifts
from hessalign.estimator.solver import Memory, remembering
from hessalign.estimator.transformers import DomainCentering, DomainWhitening, ISRCov, ISRMean
from hessalign.exceptions import UntrustworthyWarning
from hessalign.files import write_atomically
from hessalign.inputs import Domains, read_domains
from hessalign.metrics import evaluate
from hessalign.runs.layout import SPEC, hold

FORMAT_VERSION = 1
FOR_A_CHOICE = 3
"""Source domains that it takes to choose the weights of what compares domains: one is held out."""
MORE_THAN_STYLE = 1.0
"""Centring is known to fail above: what shares of classes move the means by, beside style."""
SCORINGS = ("neg_log_loss", "accuracy")

_PROCESS_MEMORY = Memory()
"""Of a process that fits heads beside others."""

Array = NDArray[np.float64]
Make = Callable[[str, bool, int], Any]


def plain_head(scoring: str, **kind: Any) -> HessianAlignedClassifier:
    """Logistic regression whose ``C`` is chosen on the sources."""
    return HessianAlignedClassifier("none", C="auto", scoring=scoring, **kind)


def _aligned(method: Any) -> Make:
    def make(scoring: str, choose: bool, seed: int) -> Any:
        weights: dict[str, Any] = {
            name: "auto" for name in ("alpha", "beta") if choose and method in READ_BY[name]
        }
        return HessianAlignedClassifier(method, C="auto", scoring=scoring, **weights)

    return make


def _penalised(kind: Any) -> Make:
    def make(scoring: str, choose: bool, seed: int) -> Any:
        return kind(*(["auto"] if choose else []), C="auto", scoring=scoring)

    return make


def _after(transformer: Any, **kind: Any) -> Make:
    return lambda scoring, choose, seed: make_pipeline(transformer(**kind), plain_head(scoring))


ALIGNED = ("gradient", "hgp", "hutchinson", "diagonal", "frobenius")
"""Choose the weight of the gradients' distance first, which is the same for all of them."""
HEADS: Mapping[str, Make] = {
    BASELINE: lambda scoring, choose, seed: plain_head(scoring),
    "equal domains": lambda scoring, choose, seed: plain_head(scoring, domain_weight="equal"),
    "balanced classes": lambda scoring, choose, seed: plain_head(scoring, class_weight="balanced"),
    **{method: _aligned(method) for method in ALIGNED},
    "V-REx": _penalised(VRExClassifier),
    "IRM": _penalised(IRMClassifier),
    "Fishr": _penalised(FishrClassifier),
    "group DRO": _penalised(GroupDROClassifier),
    "DFR": lambda scoring, choose, seed: DFRClassifier("auto", scoring=scoring, random_state=seed),
    "AFR": lambda scoring, choose, seed: AFRClassifier("auto", scoring=scoring, random_state=seed),
    "JTT": lambda scoring, choose, seed: JTTClassifier("auto", scoring=scoring),
    "ISR-Mean": _after(ISRMean),
    "ISR-Cov": _after(ISRCov),
    "centred": _after(DomainCentering),
    "whitened": _after(DomainWhitening),
}
"""By name: makes a head from a scoring, whether weights are chosen, and a seed."""
ON_REQUEST: Mapping[str, Make] = {"spectral": _aligned("spectral")}
"""Takes minutes."""
OWN_STATISTICS = ("centred", "whitened")
"""Need a new domain's samples together, and fail where classes have other shares there."""


@dataclass(frozen=True, eq=False)
class _Data:
    """What is compared on."""

    X: Array
    labels: NDArray[np.intp]
    classes: NDArray[Any]
    domains: Domains
    preprocessing: Any

    def digest(self) -> str:
        found = hashlib.sha256()
        for array in (self.X, self.labels, self.domains.codes):
            found.update(np.ascontiguousarray(array).tobytes())
        found.update(json.dumps([self.classes.tolist(), self.domains.names.tolist()], default=str).encode())
        return found.hexdigest()

    def split(self, target: int) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Features of sources and target, prepared by what the sources show; which samples are sources."""
        source = self.domains.codes != target
        own, new = self.X[source], self.X[~source]
        if self.preprocessing is None:
            return own, new, source
        fitted = clone(self.preprocessing).fit(own)
        return np.asarray(fitted.transform(own), float), np.asarray(fitted.transform(new), float), source


@dataclass(frozen=True, eq=False)
class _Fit:
    """One head, fitted without one target and applied to it.

    Attributes:
        log_probabilities: Of the target's samples, ``(n, C)``; -inf of a class that no source has.
        facts: What else is told of it.
    """

    log_probabilities: Array
    facts: dict[str, Any]


def compare_heads(
    X: ArrayLike,
    y: ArrayLike,
    *,
    sample_domain: ArrayLike,
    heads: Sequence[str] | None = None,
    targets: Sequence[Any] | None = None,
    scoring: str = "neg_log_loss",
    preprocessing: Any = None,
    seed: int = 0,
    jobs: int = 1,
    folder: Path | str | None = None,
    resume: bool = False,
    report: Callable[[int, int], None] | None = None,
) -> HeadComparison:
    """Compare every head on domains that are left out in turn.

    Each target domain is left out once. On the others every head is fitted, its hyper-parameters chosen there
    alone: source domains held out in turn, and the one-standard-error rule in favour of logistic regression.
    Then it predicts the target. Differences to logistic regression with its own choice of ``C`` are paired,
    sample by sample.

    With two source domains none can be held out to choose the weight of what compares domains: the aligned
    heads, V-REx, IRM, Fishr and group DRO then have their default weights, and the comparison says so.

    Args:
        X: Features, ``(n, d)``; finite, unless the preprocessing takes what is not.
        y: Class labels, ``(n,)``, numbers or strings.
        sample_domain: Domain id of each sample, ``(n,)``, integers or strings, at least 3 distinct ones.
        heads: Names from ``HEADS``; None (default): all. Logistic regression is always there.
        targets: Ids of the domains that are left out; None (default): each.
        scoring: What ``"auto"`` chooses by, ``"neg_log_loss"`` (default) or ``"accuracy"``.
        preprocessing: A transformer of scikit-learn's, fitted on the sources of each target anew; None
            (default): features as they are.
        seed: Of the heads that draw subsets.
        jobs: Processes that fit heads, default 1.
        folder: Where each fit is kept as soon as it is done; None (default): nowhere.
        resume: Go on with what is unfinished in the folder, or start if nothing is.
        report: Called with the number of fits done and of all.

    Returns:
        The comparison.

    Raises:
        ValueError: If an argument is wrong, there are fewer than 3 domains, a domain is named that is not
            there, or the folder holds another comparison.
        OSError: If the folder cannot be written.

    Warns:
        UntrustworthyWarning: If a head is known to fail under the shift that the sources show.

    Example:
        >>> import numpy as np
        >>> from hessalign.estimator import compare_heads
        >>> random = np.random.default_rng(0)
        >>> y, site = random.integers(0, 2, 300), np.repeat(["a", "b", "c", "d"], 75)
        >>> X = random.normal(size=(300, 2)) + 2 * y[:, None]
        >>> found = compare_heads(X, y, sample_domain=site, heads=["V-REx"])
        >>> found.to_frame()["head"].to_list()
        ['logistic regression', 'V-REx', 'best on the sources']
    """
    data = _read(X, y, sample_domain, preprocessing)
    names = _named_heads(heads)
    chosen = _named_targets(targets, data.domains)
    require_choice("scoring", scoring, SCORINGS)
    require_whole("seed", seed, least=0, most=2**31 - 1)
    require_whole("jobs", jobs, least=1)
    place = None if folder is None else require_path("folder", folder)
    with nullcontext() if place is None else hold(place):
        spec = _spec(data, scoring, seed)
        if place is not None:
            _open(place, spec, resume)
        fits = _fit_all(data, names, chosen, scoring, seed, jobs, place, spec, report)
    found = _compared(data, names, chosen, fits, scoring, seed)
    if found.doubt:
        warnings.warn(f"compare_heads: {found.doubt}", UntrustworthyWarning, stacklevel=2)
    return found


def _read(X: Any, y: Any, sample_domain: Any, preprocessing: Any) -> _Data:
    array = np.asarray(as_plain(X))
    if array.ndim != 2 or array.dtype.kind not in "biuf" or 0 in array.shape:
        raise ValueError(f"X: must be numbers of shape (n, d), got {array.dtype} of shape {array.shape}")
    array = array.astype(np.float64)
    if preprocessing is None and not np.isfinite(array).all():
        raise ValueError(
            "X: all values must be finite, got NaN or infinity; fill them by a preprocessing, such as "
            "SimpleImputer()"
        )
    found = read_domains("y", as_plain(y), len(array), "class")
    domains = read_domains("sample_domain", sample_domain, len(array))
    if len(found.names) < 2:
        raise ValueError(f"y: a comparison needs at least 2 classes, got one class, {found.names[0]!s}")
    if len(domains.names) < 3:
        raise ValueError(
            "sample_domain: a comparison needs at least 3 domains, a target and two sources, got "
            f"{len(domains.names)}"
        )
    return _Data(array, found.codes, found.names, domains, preprocessing)


def _named_heads(heads: Sequence[str] | None) -> list[str]:
    names = list(HEADS) if heads is None else list(dict.fromkeys(heads))
    for name in names:
        require_choice("heads", name, (*HEADS, *ON_REQUEST))
    return [BASELINE, *(name for name in names if name != BASELINE)]


def _named_targets(targets: Sequence[Any] | None, domains: Domains) -> list[int]:
    known = {name: code for code, name in enumerate(domains.names.tolist())}
    if targets is None:
        return list(known.values())
    unknown = [name for name in targets if name not in known]
    if unknown or not len(targets):
        raise ValueError(
            f"targets: must be ids of domains, {', '.join(map(str, list(known)[:20]))}, got {unknown[0]!r}"
            if unknown
            else "targets: at least one domain must be left out, got none"
        )
    return [known[name] for name in dict.fromkeys(targets)]


def _fit_all(
    data: _Data,
    names: Sequence[str],
    targets: Sequence[int],
    scoring: str,
    seed: int,
    jobs: int,
    place: Path | None,
    spec: Mapping[str, Any],
    report: Callable[[int, int], None] | None,
) -> dict[tuple[int, str], _Fit]:
    """Every head for every target; those that lie in the folder are read."""
    # Head by head: what a run that was stopped has done can be compared.
    every = [(target, name) for name in names for target in targets]
    fits = {}
    if place is not None:
        for key in every:
            path = _path(place, *key)
            if path.exists():
                fits[key] = _load(path, data, spec)
    left = [key for key in every if key not in fits]
    done = len(fits)
    if report is not None:
        report(done, len(every))
    for key, fit in _fitted(data, left, scoring, seed, min(jobs, max(1, len(left))), place, spec):
        fits[key] = fit
        done += 1
        if report is not None:
            report(done, len(every))
    return fits


def _fitted(
    data: _Data,
    left: Sequence[tuple[int, str]],
    scoring: str,
    seed: int,
    jobs: int,
    place: Path | None,
    spec: Mapping[str, Any],
) -> Iterator[tuple[tuple[int, str], _Fit]]:
    """Each fit as it is done, and kept in the folder by then."""

    def kept(key: tuple[int, str], fit: _Fit) -> tuple[tuple[int, str], _Fit]:
        if place is not None:
            _save(_path(place, *key), fit, spec)
        return key, fit

    if jobs == 1:
        memory = Memory()
        for key in left:
            yield kept(key, _fit(data, *key, scoring, seed, memory))
        return
    # What a head shares with others is computed once in a process: those that share most stay together.
    shared = {key: (key[0], ALIGNED if key[1] in ALIGNED else key[1]) for key in left}
    tasks = [[key for key in left if shared[key] == task] for task in dict.fromkeys(shared.values())]
    work = (delayed(_fit_alone)(data, keys, scoring, seed) for keys in tasks)
    for fits in Parallel(n_jobs=jobs, return_as="generator_unordered")(work):
        for key, fit in fits:
            yield kept(key, fit)


def _fit_alone(
    data: _Data, keys: Sequence[tuple[int, str]], scoring: str, seed: int
) -> list[tuple[tuple[int, str], _Fit]]:
    """In a process beside others: on one thread, with what this process solved before."""
    torch.set_num_threads(1)
    return [(key, _fit(data, *key, scoring, seed, _PROCESS_MEMORY)) for key in keys]


def _fit(data: _Data, target: int, name: str, scoring: str, seed: int, memory: Memory) -> _Fit:
    started = time.perf_counter()
    own, new, source = data.split(target)
    domains = data.domains.names[data.domains.codes]
    choose = len(data.domains.names) - 1 >= FOR_A_CHOICE
    head = (HEADS.get(name) or ON_REQUEST[name])(scoring, choose, seed)
    passed = {"sample_domain": domains[~source]} if name in OWN_STATISTICS else {}
    with (
        warnings.catch_warnings(record=True) as caught,
        config_context(enable_metadata_routing=True),
        remembering(memory),
    ):
        warnings.simplefilter("always")
        head.fit(own, data.labels[source], sample_domain=domains[source])
        found = head.predict_log_proba(new, **passed)
    last = head[-1] if isinstance(head, Pipeline) else head
    log_probabilities = np.full((len(new), len(data.classes)), -np.inf)
    log_probabilities[:, last.classes_] = found
    results = last.auto_results_
    return _Fit(
        log_probabilities,
        {
            "chosen": _chosen(last, choose),
            "plain": bool(last.plain_),
            "converged": bool(last.converged_),
            "source_score": float(results["mean_score"][results["chosen"]][0]),
            "comparable": not isinstance(head, Pipeline),
            "seconds": time.perf_counter() - started,
            "warnings": list(dict.fromkeys(str(each.message) for each in caught)),
        },
    )


def _chosen(head: Any, choose: bool) -> str:
    """The hyper-parameters that ``"auto"`` chose, or that it is the plain head."""
    strength = f"C={getattr(head, head._strength_name + '_'):g}"
    if head.plain_:
        return f"plain, {strength}"
    given = "" if choose or head._compares is None else " (default weights)"
    return " ".join([strength, *(f"{name}={getattr(head, name + '_'):g}" for name in head._hyper)]) + given


def _compared(
    data: _Data,
    names: Sequence[str],
    targets: Sequence[int],
    fits: Mapping[tuple[int, str], _Fit],
    scoring: str,
    seed: int,
) -> HeadComparison:
    rows, shift_rows, notes = [], [], []
    for target in targets:
        own, _, source = data.split(target)
        title = str(data.domains.names[target])
        codes = np.unique(data.domains.codes[source], return_inverse=True)[1]
        found = shifts(own, data.labels[source], codes)
        ratio = shares_to_style(own, data.labels[source], codes)
        shift_rows += [_shift_row(title, each, ratio) for each in found]
        labels = data.labels[~source]
        known = np.isin(labels, data.labels[source])
        if not known.any():
            raise ValueError(f"y: no class of the domain {title} is in another domain")
        if not known.all():
            notes.append(
                f"{title}: {int((~known).sum())} of {len(known)} samples are of classes that no source has; "
                "they are left out."
            )
        own_fits = {name: fits[target, name] for name in names}
        picked = _best_on_sources(own_fits)
        base = _by_sample(own_fits[BASELINE], labels, known)
        for name in (*names, BEST_ON_SOURCES):
            fit = own_fits[picked if name == BEST_ON_SOURCES else name]
            rows.append(
                {"target": title, "head": name}
                | _measured(fit, labels, known, data.classes, base)
                | {key: fit.facts[key] for key in ("chosen", "plain", "converged", "seconds")}
                | ({"chosen": picked} if name == BEST_ON_SOURCES else {})
            )
    notes += _notes(data, names, targets, fits)
    return HeadComparison(
        heads=tuple(names),
        targets=tuple(str(data.domains.names[target]) for target in targets),
        scoring=scoring,
        seed=seed,
        doubt=_known_to_fail(names, shift_rows),
        notes=tuple(notes),
        outcomes=pl.DataFrame(rows),
        shifts=pl.DataFrame(shift_rows),
    )


def _shift_row(target: str, shift: Shift, ratio: float) -> dict[str, Any]:
    return {
        "target": target,
        "shift": shift.kind,
        "nats": shift.nats,
        "z": shift.z,
        "found": shift.found,
        "shares_to_style": ratio if shift.kind == "share of classes" else None,
    }


def _best_on_sources(fits: Mapping[str, _Fit]) -> str:
    """The head that does best on sources held out, of those that were chosen over logistic regression."""
    chosen = [name for name, fit in fits.items() if fit.facts["comparable"] and not fit.facts["plain"]]
    return max(chosen, key=lambda name: float(fits[name].facts["source_score"]), default=BASELINE)


def _by_sample(fit: _Fit, labels: NDArray[np.intp], known: NDArray[np.bool_]) -> dict[str, Array]:
    """Whether each sample of a known class is right, in percent, and its log-loss."""
    found, own = fit.log_probabilities[known], labels[known]
    return {
        "accuracy": 100.0 * (found.argmax(1) == own),
        "log_loss": -found[np.arange(len(own)), own],
    }


def _measured(
    fit: _Fit,
    labels: NDArray[np.intp],
    known: NDArray[np.bool_],
    classes: NDArray[Any],
    base: Mapping[str, Array],
) -> dict[str, float]:
    probabilities = np.exp(fit.log_probabilities[known])
    measured = evaluate(labels[known], probabilities, classes=np.arange(len(classes))).overall
    found: dict[str, float] = {"samples": int(known.sum()), **measured}
    for name, values in _by_sample(fit, labels, known).items():
        difference = values - base[name]
        found[f"{name}_difference"] = float(difference.mean())
        spread = float(difference.var(ddof=1)) if len(difference) > 1 else 0.0
        found[f"{name}_variance"] = spread / len(difference)
    return found


def _notes(
    data: _Data,
    names: Sequence[str],
    targets: Sequence[int],
    fits: Mapping[tuple[int, str], _Fit],
) -> list[str]:
    notes = []
    if len(data.domains.names) - 1 < FOR_A_CHOICE:
        notes.append(
            "With two source domains none can be held out to choose the weight of what compares domains: "
            "the aligned heads, V-REx, IRM, Fishr and group DRO have their default weights."
        )
    for name in names:
        told: dict[str, int] = {}
        for target in targets:
            for message in fits[target, name].facts["warnings"]:
                told[message] = told.get(message, 0) + 1
        notes += [f"{name}, {count} of {len(targets)} fits: {text}" for text, count in told.items()]
    return notes


def _known_to_fail(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """What to say of centring where shares of classes move the domains' means; empty where they do not."""
    used = [name for name in OWN_STATISTICS if name in names]
    shares = [row for row in rows if row["shift"] == "share of classes"]
    moved = [row for row in shares if row["found"] and row["shares_to_style"] > MORE_THAN_STYLE]
    if not used or not moved:
        return ""
    return (
        f"{' and '.join(used)}: known to fail here. For {len(moved)} of {len(shares)} targets the sources' "
        "shares of classes differ, and move their means, along what tells the classes apart, further than "
        "anything else does; centring takes that out."
    )


# Records


def _spec(data: _Data, scoring: str, seed: int) -> dict[str, Any]:
    prepared = re.sub(r"\s+", " ", repr(data.preprocessing))
    return {
        "comparison": FORMAT_VERSION,
        "data_sha256": data.digest(),
        "preprocessing": prepared,
        "scoring": scoring,
        "seed": seed,
    }


TOLD_AS = {"comparison": "version of its format", "data_sha256": "data set"}
"""Fields of the spec that messages do not call by their names."""


def _open(place: Path, spec: Mapping[str, Any], resume: bool) -> None:
    path = place / SPEC
    if not path.exists():
        if any(each for each in place.iterdir() if not each.name.startswith(".")):
            raise ValueError(f"folder: {place} holds other files; choose an empty one")
        write_atomically(path, json.dumps(spec, indent=1) + "\n")
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or "comparison" not in found:
        raise ValueError(f"folder: {path} is not that of a comparison of heads; choose another folder")
    if not resume:
        raise ValueError(f"folder: {place} holds a comparison already; resume it, or choose another folder")
    differing = [name for name in spec if found.get(name) != spec[name]]
    if differing:
        said = ", ".join(TOLD_AS.get(name, name) for name in differing)
        raise ValueError(f"folder: {place} holds a comparison with another {said}; choose another folder")


def _path(place: Path, target: int, name: str) -> Path:
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower())
    return place / f"target-{target:03d}-{slug}.safetensors"


def _save(path: Path, fit: _Fit, spec: Mapping[str, Any]) -> None:
    facts = json.dumps({**fit.facts, "spec": spec})
    write_atomically(path, save({"log_probabilities": fit.log_probabilities}, {"hessalign": facts}))


def _load(path: Path, data: _Data, spec: Mapping[str, Any]) -> _Fit:
    try:
        with safe_open(path, "np") as file:
            facts = json.loads((file.metadata() or {})["hessalign"])
            found = file.get_tensor("log_probabilities")
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"folder: {path} is not the record of a head ({error}); remove it") from error
    if facts.pop("spec", None) != spec or found.shape[1:] != (len(data.classes),):
        raise ValueError(f"folder: {path} is of another comparison; remove it")
    return _Fit(found, facts)
