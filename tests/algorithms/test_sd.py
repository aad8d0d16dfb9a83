"""Spectral decoupling against its formula."""

from tests.algorithms.test_objectives import mean_risk
from tests.algorithms.tiny import assert_objective, make_algorithm, make_batch


def test_sd_adds_the_mean_squared_logit() -> None:
    algorithm, batch = make_algorithm("sd", penalty_weight=0.7), make_batch()
    logits = algorithm.head(algorithm.backbone(batch.inputs))
    expected = mean_risk(algorithm, batch) + 0.7 * sum(a**2 for row in logits for a in row) / logits.numel()
    found, metrics = algorithm.objective(batch)
    assert_objective(algorithm, found, expected)
    assert metrics["penalty"] == (logits**2).mean()
