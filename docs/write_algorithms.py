"""Write docs/algorithms.md from the algorithms themselves:  python docs/write_algorithms.py."""

from collections.abc import Sequence
from pathlib import Path

from hessalign.algorithms import algorithm_names
from hessalign.algorithms.description import HParamDescription, describe_algorithm, value_text
from hessalign.grid import markdown_table

PAGE = Path(__file__).parent / "algorithms.md"
INTRODUCTION = """\
# Algorithms

You get every algorithm's formula, source, hyper-parameters and search space. The same in a terminal:

    hessalign algorithms hgp

`E` source domains, `R_e` the mean cross-entropy of domain `e` in the batch, `z = f(x)` the features, `c`
the linear head. All use Adam with a constant learning rate unless said. Hyper-parameters are given with
their default and the distribution of a random search for images of 224 pixels; those shared by all
algorithms stand first. The rules and ranges are DomainBed's (Gulrajani and Lopez-Paz, ICLR 2021) and, for
HGP and Hutchinson, those of the paper's code. Where DomainBed's code departs from an algorithm's paper, the
paper's rule is the default and DomainBed's is `variant="domainbed"`, unless the list of departures says
otherwise.

This page is written by `python docs/write_algorithms.py` from the docstrings and hyper-parameters;
`hessalign algorithms` and `hessalign algorithms NAME` tell the same in a terminal. Names are understood in
DomainBed's spelling, too. What is wrong in DomainBed, and what it did to published figures, is in
[its own list](domainbed-defects.md).

## Departures

From DomainBed's code, or for HGP and Hutchinson from the paper's, with the defaults:

- `adrmx`: the remix loss takes two samples of a class from two domains. Theirs takes its drawn numbers, which
  count within the class, for places in the batch (`variant="domainbed"`). Its second backbone is a copy of
  the first; theirs is built anew, which differs where nothing is pretrained. Features of length 0, which
  copies have for their difference, count as 0 without a derivative of 10¹².
- `arm`: the context network is trained. Theirs keeps its random weights, for the optimiser is made before
  it (`variant="domainbed"`).
- `cad`: all samples count. Theirs leaves out those without another one of their class, and without `flipped`
  lets a sample be a neighbour of itself (`variant="domainbed"`). `project` works; theirs ends in a NameError.
- `causirl_coral`, `causirl_mmd`: cuts are drawn by torch, not by NumPy. No distance with one source domain;
  theirs is then noise. 1 sample of each domain is refused; theirs is then never compared.
- `coral`, `irm`, `ib_erm`, `ib_irm`, `rdm`: 1 sample of each domain is refused. Theirs gives NaN or fails.
- `eqrm`: a drawn burn-in is cut to a whole number, so that Adam begins anew with `late_lr`. Theirs never does
  in any draw. And the quantile is differentiated as the function of the risks that it is; theirs is the
  derivative of the two ends of its bisection, through the smallest and the largest risk and the bandwidth
  (`variant="domainbed"` has both).
- `erm_plus_plus`: 500 steps of the head and a mean of the networks after 600, 601, ... updates. Theirs counts
  501 steps, and its mean begins with the network after 599 (`variant="domainbed"`). No gradient of the
  backbone is computed while the head alone is trained. Counts and mean are in `state_dict`.
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
- `iga`: the mean over domains. Theirs is the sum (`variant="domainbed"`).
- `mixup`: `λ` comes from torch's generator, and for `α` below 0.05 from logarithms, which small `α` need.
  Theirs comes from NumPy's generator.
- `mldg`: at most all domains but one are held out, and with one source domain the update is that of `erm`.
  Theirs trains nothing where `n_meta_test` is not below `E` (`variant="domainbed"`).
- `mtl`: the head sees the domain's mean feature. Theirs sees standard normal noise, in training and at test
  (`variant="domainbed"`).
- `rdm`: distances in float64; batches of any size on any device. `penalty_weight` and `variance_weight` are
  drawn as for data that theirs does not name: theirs draws the first from 1 for PACS and TerraIncognita, and
  has 0 for the second on TerraIncognita and OfficeHome.
- `sand_mask`: default `τ = 0.5`. Theirs is 1, with which nothing is trained (`variant="domainbed"`,
  `tau=1`).
- `self_reg`: the projection is trained. Theirs keeps its random weights (`variant="domainbed"`). 1 sample of
  each domain is refused.
- `transfer`: with `gda` backbone and head take plain gradient steps. Theirs then trains nothing
  (`variant="domainbed"`); its search always has `gda`, ours never. The features of the adversarial steps are
  computed once. `beta1` and `weight_decay_d`, which theirs draws, have no effect there and are not here.
- `trm`: a Neumann series from its first term on, scaled so that it converges, over weights and bias, and
  weights that follow the risks. Theirs begins with the second term, for a tensor that is also the sum is
  changed in place; is broken off where an element exceeds 10; leaves the bias out; and follows risks that
  are weighted already (`variant="domainbed"` has all of it). Heads and weights are in `state_dict`.
- `urm`: any backbone; the activation is applied to its features. Theirs takes four kinds of networks.
- All: penalties in float32 at least, distances of `coral` and `mmd` in float64, closed forms instead of
  repeated differentiation. In float32 their MMD has samples differ from themselves.

`exact_diagonal`, `exact_hessian` and `flat_head` are ours. The paper has no search space for them: their
ranges reach from where the penalty is as good as absent, the default in them, to the upper end of
Hutchinson's. They used to be Hutchinson's own, `10^U(1, 4)` and `10^U(2, 6)` (for `gamma` `10^U(-1.5, 2)`),
and the recorded tables of this repository were drawn from these; recorded hyper-parameters stay valid.

Hutchinson's ranges do not contain its defaults in the paper's code; we keep both. So we do with the defaults
of `transfer` (`adversary_steps`) and `urm` (`discriminator_lr`), which DomainBed never draws. The paper's
code writes the bounds of HGP's and Hutchinson's weights from high to low, which mirrors the random number of
a draw, and so do we: the draws are the paper's. Its batch sizes begin at 2⁴ where DomainBed's begin at 2³.

`cma` has three published forms, its variants: the released code aligns diagonals, the paper's formula and a
later version of the code whole Hessians, and the code for linear probing divides the squared distance of
Hessians by the number of their elements. Distances are those of `exact_diagonal` and `exact_hessian`;
weights, wait and search space are CMA's own. Its default wait of 0 lies outside its search space there, too.

What we share with DomainBed and not with an algorithm's own paper, without a variant:

- `cdann`: one discriminator with class embeddings and class weights. The paper has one for each class and
  one that is normalised by the class priors.
- `coral`: `mean_kl (C − C′)_kl²`, and the squared distance of the means beside it. The paper has a quarter
  of that, `1/(4d²) Σ_kl (C − C′)_kl²`, and no means.
- `erm_plus_plus`: neither the learning rate that falls with the validation loss, nor a second training on all
  data, nor better weights to begin with. They are choices of a run.
- `mldg`: first order. The paper takes second derivatives.
- `mmd`: seven Gaussian kernels on the features. The paper puts an adversarial autoencoder around the
  discrepancy.
- `sagnet`: style is mean and variance over the features of a sample, and the style head is linear. The
  paper takes channel statistics of feature maps inside the network, which ends in two branches.
- `sd`: the mean over classes of the squared logits. The paper has half the square of the one logit.
- `self_reg`: neither the curriculum over domains nor the averaged weights of the paper.

**BatchNorm that is trained.** Each domain passes through the backbone by itself, and is normalised by its
own statistics, in `group_dro`, `coral`, `mmd`, `mtl`, `causirl_coral`, `causirl_mmd`, `eqrm`, `hgp`,
`hutchinson` and the gap of `transfer`, as in their reference, and in `exact_diagonal`, `exact_hessian`,
`flat_head` and `cma`, which go with Hutchinson; `and_mask`, `sand_mask`, `fish`, `iga`, `mldg` and `mixup`
treat one domain, or one pair, at a time in any case. All others pool the batch, as theirs does. Where
BatchNorm is frozen, which is the default with pretrained weights, there is no difference, and one pass is
made.

**DomainBed's own later choice.** Its tables are those of torchvision's ResNet-50 with frozen BatchNorm, our
default. Since July 2024 its code takes other weights, trained with AugMix, and trains BatchNorm. Here that
is `--backbone timm:resnet50.ram_in1k --train-batch-norm`. Results of the two do not belong into one table;
the backbone is part of a run's record.

**Warnings.** Algorithms that compare source domains warn with a `NoEffectWarning` where there is one. A run
warns with an `UntrustworthyWarning` where the weighted penalty is more than a hundred times the risk (or
the risk of guessing, where that is larger), and where after fifty updates all samples of the source domains
are predicted as one class while a penalty is minimised. A wait that the run does not outlast (annealing,
burn-in), and a hyper-parameter that is set and that the algorithm does not read, are told before the first
step. Each is told once.
"""


def hparams_table(hparams: Sequence[HParamDescription]) -> list[str]:
    """Rows for some hyper-parameters, for images of 224 pixels."""
    rows = [
        [
            f"`{hparam.name}`",
            value_text(hparam.defaults["large"]),
            hparam.searches.get("large", "not searched"),
        ]
        for hparam in hparams
    ]
    return ["", markdown_table(["hyper-parameter", "default", "search"], rows, "lrl")] if rows else []


def page() -> str:
    """The whole page."""
    shared = [hparam for hparam in describe_algorithm("erm").hparams if hparam.is_shared]
    lines = [INTRODUCTION, "## Shared hyper-parameters", *hparams_table(shared)]
    for name in algorithm_names():
        algorithm = describe_algorithm(name)
        own = [hparam for hparam in algorithm.hparams if not hparam.is_shared]
        lines += ["", f"## `{name}`", "", algorithm.paper, "", algorithm.rule, *hparams_table(own)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
