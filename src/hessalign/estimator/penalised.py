# ruff: noqa: N803 (scikit-learn's names)
r"""Linear heads with a penalty, or the worst group, in the objective: V-REx, IRM, Fishr, group DRO."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from hessalign.checks import require_number
from hessalign.estimator.base import TERM, DomainWeight, Hyper, Settings, Strength, Weight
from hessalign.estimator.classifier import ClassWeight, HeadClassifier
from hessalign.estimator.data import Head, Samples
from hessalign.estimator.penalties import GradientVariance, Penalty, RiskVariance, Slope, WorstGroup
from hessalign.estimator.problem import Plain, Problem
from hessalign.estimator.solver import Solution, solve

# Group DRO ends no further from its optimum than this share of the plain fit's loss.
GAP = 1e-3
# On the way there the maximum is sharpened in steps of this factor.
SHARPENING = 10.0


class PenalisedClassifier(HeadClassifier):
    """What V-REx, IRM and Fishr share."""

    _hyper: ClassVar[Mapping[str, Hyper]] = {"penalty_weight": TERM}
    _compares: ClassVar[str | None] = "the penalty"
    _plain_by: ClassVar[str] = "penalty_weight=0"

    penalty_weight: Weight

    def __init__(
        self,
        penalty_weight: Weight = 1.0,
        *,
        C: Strength = None,
        class_weight: ClassWeight = None,
        domain_weight: DomainWeight = "size",
        scoring: Any = None,
        fit_intercept: bool = True,
        tol: float = 3e-4,
        max_iter: int = 1000,
    ) -> None:
        self.penalty_weight = penalty_weight
        self.C = C
        self.class_weight = class_weight
        self.domain_weight = domain_weight
        self.scoring = scoring
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter


class VRExClassifier(PenalisedClassifier):
    r"""Logistic regression whose risk is the same in every domain: V-REx.

    Minimises, over ``W`` and ``b``,

        L  +  λ L° V / V°  +  (1/(2 C n)) ‖W‖²,     V = Σ_e w_e (R_e − R̄)²

    ``R_e`` is the mean loss of domain ``e`` with weight ``w_e`` (see ``domain_weight``), ``V`` the variance
    of these risks, ``V°`` and ``L°`` variance and loss where the fit without penalty ends. Krueger et al.,
    "Out-of-Distribution Generalization via Risk Extrapolation (REx)" (ICML 2021), V-REx, Equation 8.

    The penalty is not convex. L-BFGS starts where plain logistic regression ends and goes on along growing
    weights; nothing is drawn at random.

    Args:
        penalty_weight: Weight ``λ`` in units of the plain fit's loss: at 1 (default) the penalty costs as
            much as the loss where the plain fit ends. Or ``"auto"``: 0, 0.1, 1,
            10, 100 or 1,000, by source domains held out and the one-standard-error rule towards 0.
        C: Inverse strength of ``‖W‖²``, as in ``LogisticRegression``; ``"auto"``: chosen on domains held
            out. None (default) is 1, or ``"auto"`` where penalty_weight is ``"auto"``.
        class_weight: None (default), ``"balanced"`` or weights by class, as in ``LogisticRegression``.
        domain_weight: ``"size"`` (default): a domain weighs as its samples do; ``"equal"``: all weigh the
            same.
        scoring: What ``"auto"`` chooses by: None (default, log-loss), ``"accuracy"``, any name of
            scikit-learn's or of [hessalign.metrics][hessalign.metrics.Scorer], or a scorer; the higher the
            better.
        fit_intercept: False fixes the intercept at 0.
        tol: As for [HessianAlignedClassifier][hessalign.HessianAlignedClassifier].
        max_iter: Most L-BFGS steps, once for the start and once for each stage on the way; default 1000.

    Attributes:
        classes_: Class labels, ascending, ``(C,)``.
        coef_: ``W``, ``(C, d)``; ``(1, d)`` for two classes.
        intercept_: ``b``, ``(C,)``; ``(1,)`` for two classes.
        domains_: Domain ids, ascending; ``[0]`` if none were given.
        penalty_weight_: Value used.
        C_: Inverse strength used.
        plain_: Whether ``"auto"`` chose plain logistic regression.
        auto_results_: With ``"auto"``, everything tried, as for
            [HessianAlignedClassifier][hessalign.HessianAlignedClassifier].
        loss_: Mean loss over all samples.
        penalty_: The penalty, weight included.
        objective_: What was minimised.
        converged_: Whether its gradient is within the tolerance; a ConvergenceWarning says what to do if not.

    Examples:
        >>> import numpy as np
        >>> from hessalign.estimator import VRExClassifier
        >>> random = np.random.default_rng(0)
        >>> y, site = random.integers(0, 2, 300), random.integers(0, 3, 300)
        >>> X = random.normal(size=(300, 2)) + np.column_stack([y, y * (site - 1)])
        >>> head = VRExClassifier().fit(X, y, sample_domain=site)
        >>> head.converged_, head.score(X, y) > 0.6
        (True, True)
    """

    @override
    def _penalty(self) -> Penalty:
        return RiskVariance()


class IRMClassifier(PenalisedClassifier):
    r"""Logistic regression that is optimal in every domain at once: IRM.

    Minimises, over ``W`` and ``b``,

        L  +  λ L° D / D°  +  (1/(2 C n)) ‖W‖²,     D = Σ_e w_e g_e²

    ``g_e`` is the derivative of domain ``e``'s mean loss at ``s · logits`` by ``s`` at 1, in closed form the
    mean of ``r_i·a_i``, residual times logits. ``D°`` and ``L°`` are penalty and loss where the fit without
    penalty ends. Arjovsky, Bottou, Gulrajani and Lopez-Paz, "Invariant Risk Minimization" (2019), IRMv1.

    The penalty is not convex. L-BFGS starts where plain logistic regression ends and goes on along growing
    weights; nothing is drawn at random.

    Args:
        penalty_weight: Weight ``λ`` in units of the plain fit's loss: at 1 (default) the penalty costs as
            much as the loss where the plain fit ends. Or ``"auto"``: 0, 0.1, 1,
            10, 100 or 1,000, by source domains held out and the one-standard-error rule towards 0.
        C: Inverse strength of ``‖W‖²``, as in ``LogisticRegression``; ``"auto"``: chosen on domains held
            out. None (default) is 1, or ``"auto"`` where penalty_weight is ``"auto"``.
        class_weight: None (default), ``"balanced"`` or weights by class, as in ``LogisticRegression``.
        domain_weight: ``"size"`` (default): a domain weighs as its samples do; ``"equal"``: all weigh the
            same.
        scoring: What ``"auto"`` chooses by: None (default, log-loss), ``"accuracy"``, any name of
            scikit-learn's or of [hessalign.metrics][hessalign.metrics.Scorer], or a scorer; the higher the
            better.
        fit_intercept: False fixes the intercept at 0.
        tol: As for [HessianAlignedClassifier][hessalign.HessianAlignedClassifier].
        max_iter: Most L-BFGS steps, once for the start and once for each stage on the way; default 1000.

    Attributes:
        classes_: Class labels, ascending, ``(C,)``.
        coef_: ``W``, ``(C, d)``; ``(1, d)`` for two classes.
        intercept_: ``b``, ``(C,)``; ``(1,)`` for two classes.
        domains_: Domain ids, ascending; ``[0]`` if none were given.
        penalty_weight_: Value used.
        C_: Inverse strength used.
        plain_: Whether ``"auto"`` chose plain logistic regression.
        auto_results_: With ``"auto"``, everything tried, as for
            [HessianAlignedClassifier][hessalign.HessianAlignedClassifier].
        loss_: Mean loss over all samples.
        penalty_: The penalty, weight included.
        objective_: What was minimised.
        converged_: Whether its gradient is within the tolerance; a ConvergenceWarning says what to do if not.

    Examples:
        >>> import numpy as np
        >>> from hessalign.estimator import IRMClassifier
        >>> random = np.random.default_rng(0)
        >>> y, site = random.integers(0, 2, 300), random.integers(0, 3, 300)
        >>> X = random.normal(size=(300, 2)) + np.column_stack([y, y * (site - 1)])
        >>> head = IRMClassifier().fit(X, y, sample_domain=site)
        >>> head.converged_, head.score(X, y) > 0.6
        (True, True)
    """

    @override
    def _penalty(self) -> Penalty:
        return Slope()


class FishrClassifier(PenalisedClassifier):
    r"""Logistic regression whose gradients vary alike in every domain: Fishr.

    Minimises, over ``W`` and ``b``,

        L  +  λ L° F / F°  +  (1/(2 C n)) ‖W‖²,     F = Σ_e w_e ‖v_e − v̄‖²

    ``v_e`` is the variance, over the samples of domain ``e``, of each element of the gradient by the head on
    ``X / scale_``. ``F°`` and ``L°`` are penalty and loss where the fit without penalty ends. Rame, Dancette
    and Cord, "Fishr: Invariant Gradient Variances for Out-of-Distribution Generalization" (ICML 2022).

    The penalty is not convex. L-BFGS starts where plain logistic regression ends and goes on along growing
    weights; nothing is drawn at random.

    Args:
        penalty_weight: Weight ``λ`` in units of the plain fit's loss: at 1 (default) the penalty costs as
            much as the loss where the plain fit ends. Or ``"auto"``: 0, 0.1, 1,
            10, 100 or 1,000, by source domains held out and the one-standard-error rule towards 0.
        C: Inverse strength of ``‖W‖²``, as in ``LogisticRegression``; ``"auto"``: chosen on domains held
            out. None (default) is 1, or ``"auto"`` where penalty_weight is ``"auto"``.
        class_weight: None (default), ``"balanced"`` or weights by class, as in ``LogisticRegression``.
        domain_weight: ``"size"`` (default): a domain weighs as its samples do; ``"equal"``: all weigh the
            same.
        scoring: What ``"auto"`` chooses by: None (default, log-loss), ``"accuracy"``, any name of
            scikit-learn's or of [hessalign.metrics][hessalign.metrics.Scorer], or a scorer; the higher the
            better.
        fit_intercept: False fixes the intercept at 0.
        tol: As for [HessianAlignedClassifier][hessalign.HessianAlignedClassifier].
        max_iter: Most L-BFGS steps, once for the start and once for each stage on the way; default 1000.

    Attributes:
        classes_: Class labels, ascending, ``(C,)``.
        coef_: ``W``, ``(C, d)``; ``(1, d)`` for two classes.
        intercept_: ``b``, ``(C,)``; ``(1,)`` for two classes.
        domains_: Domain ids, ascending; ``[0]`` if none were given.
        penalty_weight_: Value used.
        C_: Inverse strength used.
        plain_: Whether ``"auto"`` chose plain logistic regression.
        auto_results_: With ``"auto"``, everything tried, as for
            [HessianAlignedClassifier][hessalign.HessianAlignedClassifier].
        loss_: Mean loss over all samples.
        penalty_: The penalty, weight included.
        objective_: What was minimised.
        converged_: Whether its gradient is within the tolerance; a ConvergenceWarning says what to do if not.

    Examples:
        >>> import numpy as np
        >>> from hessalign.estimator import FishrClassifier
        >>> random = np.random.default_rng(0)
        >>> y, site = random.integers(0, 2, 300), random.integers(0, 3, 300)
        >>> X = random.normal(size=(300, 2)) + np.column_stack([y, y * (site - 1)])
        >>> head = FishrClassifier().fit(X, y, sample_domain=site)
        >>> head.converged_, head.score(X, y) > 0.6
        (True, True)
    """

    @override
    def _penalty(self) -> Penalty:
        return GradientVariance()


class GroupDROClassifier(HeadClassifier):
    r"""Logistic regression for the worst group: the largest of the groups' mean losses is minimised.

    Minimises, over ``W`` and ``b``, to convergence,

        (1 − ρ) L  +  ρ max_g (R_g + a / √n_g)  +  (1/(2 C n)) ‖W‖²

    ``R_g`` is the mean loss of group ``g`` of ``n_g`` samples; groups are ``sample_group``, or else the
    domains. The problem is convex. The maximum is smoothed, ``τ log Σ_g exp(R_g / τ)``, and sharpened until
    the objective is certainly within a thousandth of the plain fit's loss of the true optimum: where the
    smoothed objective is flat, the head minimises the loss with the groups' weights ``q = softmax(R / τ)``, a
    lower bound. Sagawa, Koh, Hashimoto and Liang, "Distributionally Robust Neural Networks for Group Shifts"
    (ICLR 2020), who take stochastic steps to the same saddle point.

    Args:
        robustness: ``ρ``, from 0, plain logistic regression, to 1 (default), the worst group alone; or
            ``"auto"``: 0, 0.5 or 1, by source domains held out and the one-standard-error rule towards 0.
            With groups and no domains a fifth of every group is held out in turn.
        adjustment: ``a``, default 0: small groups are made to look worse, as their training loss looks better
            than it is.
        C: Inverse strength of ``‖W‖²``, as in ``LogisticRegression``; ``"auto"``: chosen on domains held
            out. None (default) is 1, or ``"auto"`` where robustness is ``"auto"``.
        class_weight: None (default), ``"balanced"`` or weights by class, as in ``LogisticRegression``.
        domain_weight: ``"size"`` (default): a domain weighs as its samples do; ``"equal"``: all weigh the
            same.
        scoring: What ``"auto"`` chooses by: None (default, log-loss), ``"accuracy"``, any name of
            scikit-learn's or of [hessalign.metrics][hessalign.metrics.Scorer], or a scorer; the higher the
            better.
        fit_intercept: False fixes the intercept at 0.
        tol: As for [HessianAlignedClassifier][hessalign.HessianAlignedClassifier].
        max_iter: Most L-BFGS steps, once for the start and once for each stage on the way; default 1000.

    Attributes:
        classes_: Class labels, ascending, ``(C,)``.
        coef_: ``W``, ``(C, d)``; ``(1, d)`` for two classes.
        intercept_: ``b``, ``(C,)``; ``(1,)`` for two classes.
        domains_: Domain ids, ascending; ``[0]`` if none were given.
        robustness_: Value used.
        C_: Inverse strength used.
        plain_: Whether ``"auto"`` chose plain logistic regression.
        auto_results_: With ``"auto"``, everything tried, as for
            [HessianAlignedClassifier][hessalign.HessianAlignedClassifier].
        loss_: Mean loss over all samples.
        penalty_: What the largest of the groups' losses adds to the mean loss.
        objective_: What was minimised.
        converged_: Whether its gradient is within the tolerance; a ConvergenceWarning says what to do if not.
        gap_: The objective is at most this much above its true minimum, but for ``tol``.
        group_weights_: ``q``, ``(m,)``: the plain fit with these weights of the groups is the same head.

    Examples:
        >>> import numpy as np
        >>> from hessalign.estimator import GroupDROClassifier
        >>> random = np.random.default_rng(0)
        >>> y, site = random.integers(0, 2, 300), random.integers(0, 3, 300)
        >>> X = random.normal(size=(300, 2)) + np.column_stack([y, y * (site - 1)])
        >>> head = GroupDROClassifier().fit(X, y, sample_group=site)
        >>> head.converged_, head.score(X, y) > 0.6
        (True, True)
    """

    _hyper: ClassVar[Mapping[str, Hyper]] = {
        "robustness": Hyper((0.0, 0.5, 1.0), 0.0, {"least": 0, "most": 1})
    }
    _compares: ClassVar[str | None] = "group DRO"
    _plain_by: ClassVar[str] = "robustness=0"
    _uses_groups: ClassVar[bool] = True

    def __init__(
        self,
        robustness: Weight = 1.0,
        *,
        adjustment: float = 0.0,
        C: Strength = None,
        class_weight: ClassWeight = None,
        domain_weight: DomainWeight = "size",
        scoring: Any = None,
        fit_intercept: bool = True,
        tol: float = 3e-4,
        max_iter: int = 1000,
    ) -> None:
        self.robustness = robustness
        self.adjustment = adjustment
        self.C = C
        self.class_weight = class_weight
        self.domain_weight = domain_weight
        self.scoring = scoring
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter

    @override
    def _check_settings(self) -> Settings:
        require_number("adjustment", self.adjustment, least=0)
        return super()._check_settings()

    @override
    def _codes(self, samples: Samples) -> NDArray[np.intp]:
        return samples.domains if samples.groups is None else samples.groups

    @override
    def _penalty(self) -> Penalty:
        return WorstGroup(1.0, float(self.adjustment))

    @override
    def _solve(
        self, problem: Problem, plain: Plain, values: Mapping[str, float], tol: float, start: Head | None
    ) -> Solution:
        theta = plain.solution.theta if start is None else start
        if not problem.objective(plain, values).is_penalised:
            return plain.solution
        iterations = 0
        for temperature in self._temperatures(problem, plain):
            sharper = replace(problem, penalty=WorstGroup(temperature, float(self.adjustment)))
            objective = sharper.objective(plain, values)
            solution = solve(objective, theta, tol, self.max_iter, plain.coordinates)
            theta, iterations = solution.theta, iterations + solution.iterations
        return replace(solution, iterations=iterations)

    @override
    def _remark(
        self, problem: Problem, plain: Plain, solution: Solution, values: Mapping[str, float]
    ) -> None:
        final = WorstGroup(self._temperatures(problem, plain)[-1], float(self.adjustment))
        logits = problem.data.logits(torch.as_tensor(solution.theta, dtype=problem.data.rows.dtype))
        gap, weights = final.gap(problem.data, problem.loss, logits)
        robustness = 0.0 if self.plain_ else values["robustness"]
        largest = float(final.risks(problem.data, problem.loss, logits).max())
        smoothed, self.penalty_ = self.penalty_, robustness * (largest - self.loss_)
        self.objective_ += self.penalty_ - smoothed
        self.gap_ = robustness * gap
        self.group_weights_ = (
            ((1 - robustness) * problem.data.domain_shares + robustness * weights).double().cpu().numpy()
        )

    def _temperatures(self, problem: Problem, plain: Plain) -> list[float]:
        """From a soft maximum to one that is sharp enough for the gap, which is at most ``τ log m``."""
        last = GAP * max(plain.loss, 1e-6) / np.log(max(2, len(problem.data.sizes)))
        steps = int(np.ceil(np.log(max(plain.loss, 1e-6) / last) / np.log(SHARPENING)))
        return [last * SHARPENING**step for step in range(steps, -1, -1)]
