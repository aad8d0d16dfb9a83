"""The transfer bound holds on risks that are exactly quadratic, with nothing left to o(δ²)."""

import torch

import hessalign as ha
from hessalign.diagnostics.distances import gradient_term, transfer_bound


def test_no_head_in_the_neighbourhood_exceeds_the_bound() -> None:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(2, 50, 3, generator=random, dtype=torch.float64) + torch.tensor([[[0.0]], [[0.7]]])
    targets = torch.randn(2, 50, 2, generator=random, dtype=torch.float64)
    head = 0.3 * torch.randn(2, 4, generator=random, dtype=torch.float64)
    radius = 0.8

    def risk(domain: int, heads: torch.Tensor) -> torch.Tensor:
        outputs = torch.einsum("kcd,nd->knc", heads[..., :-1], features[domain]) + heads[:, None, :, -1]
        return 0.5 * (outputs - targets[domain]).square().sum(2).mean(1)

    domains = [
        ha.HeadDerivatives.from_logits(x, x @ head[:, :-1].T + head[:, -1], y, ha.SquaredError())
        for x, y in zip(features, targets, strict=True)
    ]
    spectral = float(ha.hessian_distance(domains[0], domains[1], norm="spectral"))
    slope = gradient_term(domains[0].gradient(), domains[1].gradient(), radius)
    bound = transfer_bound(spectral, radius) + slope
    directions = torch.randn(20_000, 2, 4, generator=random, dtype=torch.float64)
    lengths = radius * torch.rand(20_000, 1, 1, generator=random, dtype=torch.float64)
    heads = head + lengths * directions / directions.flatten(1).norm(dim=1).view(-1, 1, 1)
    for source, target in ((0, 1), (1, 0)):
        regrets = [risk(domain, heads) - risk(domain, heads).min() for domain in (target, source)]
        measure = float((regrets[0] - regrets[1]).max())
        assert 0 < measure <= bound
