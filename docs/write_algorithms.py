"""Write docs/algorithms.md from the algorithms themselves:  python docs/write_algorithms.py."""

import inspect
import sys
from pathlib import Path

from hessalign.algorithms import Algorithm, algorithm_names, get_algorithm
from hessalign.algorithms.hparams import Choice, Distribution, Fixed, LogUniform, Uniform
from hessalign.grid import markdown_table

PAGE = Path(__file__).parent / "algorithms.md"
INTRODUCTION = """\
# Algorithms

`E` source domains, `R_e` the mean cross-entropy of domain `e` in the batch, `z = f(x)` the features, `c`
the linear head. All use Adam with a constant learning rate unless said. Hyper-parameters are given with
their default and the distribution of a random search for images of 224 pixels; those shared by all
algorithms stand first. The rules and ranges are DomainBed's (Gulrajani and Lopez-Paz, ICLR 2021) and, for
HGP and Hutchinson, those of the paper's code. Where DomainBed's code departs from an algorithm's paper, the
paper's rule is the default and DomainBed's is `variant="domainbed"`, unless the list of departures says
otherwise.

This page is written by `python docs/write_algorithms.py` from the docstrings and hyper-parameters.

## Departures

From DomainBed's code, or for HGP and Hutchinson from the paper's, with the defaults:

- `arm`: the context network is trained. Theirs keeps its random weights, for the optimiser is made before
  it (`variant="domainbed"`).
- `coral`, `irm`: 1 sample of each domain is refused. Theirs gives NaN.
- `fish`: one inner network is kept, and counts of BatchNorm are rounded. Theirs builds a new network in
  each update and cuts counts to whole numbers.
- `fishr`: the moving averages are in `state_dict`, and 1 sample of each domain is refused. Theirs are lost
  with the process, and the penalty of 1 sample is 0.
- `group_dro`: weights of fixed size, which a checkpoint brings back. Theirs grow with the first batch and
  cannot be loaded.
- `hgp`: the product `H G` itself, defined everywhere. Theirs is `‖G‖ ∂‖G‖/∂θ` with 10⁻¹⁶ added to `G`, and
  NaN where the mean gradient is exactly 0.
- `hutchinson`: the expectation over the probes, and no penalty with one source domain. Theirs draws 300
  probes, whose noise is a penalty with one source domain, too (`variant="domainbed"`: the same
  distribution, drawn in another order).
- `mixup`: `λ` comes from torch's generator, and for `α` below 0.05 from logarithms, which small `α` need.
  Theirs comes from NumPy's generator.
- `mldg`: at most all domains but one are held out, and with one source domain the update is that of `erm`.
  Theirs trains nothing where `n_meta_test` is not below `E` (`variant="domainbed"`).
- `mtl`: the head sees the domain's mean feature. Theirs sees standard normal noise, in training and at test
  (`variant="domainbed"`).
- `sand_mask`: default `τ = 0.5`. Theirs is 1, with which nothing is trained (`variant="domainbed"`,
  `tau=1`).
- All: penalties in float32 at least, distances of `coral` and `mmd` in float64, closed forms instead of
  repeated differentiation. In float32 their MMD has samples differ from themselves.

`exact_diagonal`, `exact_hessian` and `flat_head` are ours. The paper has no search space for them: their
ranges reach from where the penalty is as good as absent, the default in them, to the upper end of
Hutchinson's. They used to be Hutchinson's own, `10^U(1, 4)` and `10^U(2, 6)` (for `gamma` `10^U(-1.5, 2)`),
and the recorded tables of this repository were drawn from these; recorded hyper-parameters stay valid.

Hutchinson's ranges do not contain its defaults in the paper's code; we keep both. Its code writes the
bounds of HGP's and Hutchinson's weights from high to low, which mirrors the random number of a draw, and so
do we: the draws are the paper's. Its batch sizes begin at 2⁴ where DomainBed's begin at 2³.

`cma` has three published forms, its variants: the released code aligns diagonals, the paper's formula and a
later version of the code whole Hessians, and the code for linear probing divides the squared distance of
Hessians by the number of their elements. Distances are those of `exact_diagonal` and `exact_hessian`;
weights, wait and search space are CMA's own. Its default wait of 0 lies outside its search space there, too.

What we share with DomainBed and not with an algorithm's own paper, without a variant:

- `cdann`: one discriminator with class embeddings and class weights. The paper has one for each class and
  one that is normalised by the class priors.
- `coral`: `mean_kl (C − C′)_kl²`, and the squared distance of the means beside it. The paper has a quarter
  of that, `1/(4d²) Σ_kl (C − C′)_kl²`, and no means.
- `mldg`: first order. The paper takes second derivatives.
- `mmd`: seven Gaussian kernels on the features. The paper puts an adversarial autoencoder around the
  discrepancy.
- `sagnet`: style is mean and variance over the features of a sample, and the style head is linear. The
  paper takes channel statistics of feature maps inside the network, which ends in two branches.

**BatchNorm that is trained.** Each domain passes through the backbone by itself, and is normalised by its
own statistics, in `group_dro`, `coral`, `mmd`, `mtl`, `hgp`, `hutchinson`, as in their reference, and in
`exact_diagonal`, `exact_hessian`, `flat_head` and `cma`, which go with Hutchinson; `and_mask`, `sand_mask`,
`fish`, `mldg` and `mixup` treat one domain, or one pair, at a time in any case. All others pool the batch,
as theirs does. Where BatchNorm is frozen, which is the default with pretrained weights, there is no
difference, and one pass is made.

**DomainBed's own later choice.** Its tables are those of torchvision's ResNet-50 with frozen BatchNorm, our
default. Since July 2024 its code takes other weights, trained with AugMix, and trains BatchNorm. Here that
is `--backbone timm:resnet50.ram_in1k --train-batch-norm`. Results of the two do not belong into one table;
the backbone is part of a run's record.

**Warnings.** Algorithms that compare source domains warn with a `NoEffectWarning` where there is one. A run
warns with an `UntrustworthyWarning` where the weighted penalty is more than a hundred times the risk (or
the risk of guessing, where that is larger), and where after fifty updates all samples of the source domains
are predicted as one class while a penalty is minimised. Each is told once.
"""


def describe(search: Distribution) -> str:
    """A distribution in a few signs."""
    match search:
        case LogUniform(first, second, base, whole):
            low, high = sorted((first, second))
            text = f"{base:g}^U({low:g}, {high:g})"
            return f"int({text})" if whole else text
        case Uniform(low, high, whole):
            return f"int(U({low:g}, {high:g}))" if whole else f"U({low:g}, {high:g})"
        case Choice(values):
            return f"one of {', '.join(f'{value:g}' for value in values)}"
        case Fixed(value):
            return f"always {value:g}"


def hparams_table(algorithm: type[Algorithm], but: set[str]) -> list[str]:
    """Rows for the hyper-parameters that are not in ``but``."""
    spaces = algorithm.hparams_class.spaces("large")
    rows = [
        [f"`{name}`", f"{space.default:g}", describe(space.search)]
        for name, space in spaces.items()
        if name not in but
    ]
    for name, field in algorithm.hparams_class.model_fields.items():
        if name not in spaces:
            rows.append([f"`{name}`", str(field.default), "not searched"])
    return ["", markdown_table(["hyper-parameter", "default", "search"], rows, "lrl")] if rows else []


def rule_classes(algorithm: type[Algorithm]) -> list[type[Algorithm]]:
    """The algorithm's class, and those it shares its rule with."""
    return [kind for kind in algorithm.mro() if issubclass(kind, Algorithm) and kind is not Algorithm]


def page() -> str:
    """The whole page."""
    lines = [INTRODUCTION, "## Shared hyper-parameters", *hparams_table(get_algorithm("erm"), set())]
    shared = get_algorithm("erm").hparams_class.spaces("large")
    for name in algorithm_names():
        algorithm = get_algorithm(name)
        paper = inspect.getdoc(sys.modules[algorithm.__module__]) or ""
        rules = [inspect.getdoc(kind) or "" for kind in rule_classes(algorithm)]
        own = algorithm.hparams_class.spaces("large")
        but = {hparam for hparam, space in shared.items() if own[hparam] == space}
        lines += ["", f"## `{name}`", "", paper, "", "\n\n".join(rules), *hparams_table(algorithm, but)]
    return "\n".join(lines).replace("``", "`") + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
