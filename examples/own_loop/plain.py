"""A plain PyTorch loop: two lines more than without the penalty.

python examples/own_loop/plain.py
"""

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

import hessalign as ha
from hessalign.loop import DomainBalancedSampler, WeightSchedule

# Three sites with other backgrounds; feature 0 tells the class, feature 1 only in two of the sites.
torch.manual_seed(0)
domains = torch.arange(600) % 3
targets = torch.randint(0, 2, (600,))
inputs = torch.randn(600, 8)
inputs[:, 0] += 2.0 * targets
inputs[:, 1] += torch.where(domains == 2, -2.0, 2.0) * targets
data = TensorDataset(inputs, targets, domains)

backbone = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU())
head = torch.nn.Linear(16, 2)
optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], lr=3e-3)

penalty = ha.HessianAlignment("hgp", alpha=1.0, beta=1.0)  # line one
schedule = WeightSchedule(after=10.0, start=20, ramp=20, reset_optimizer=True)
loader = DataLoader(data, batch_sampler=DomainBalancedSampler(domains, samples_per_domain=32, batches=80))

for step, (batch_inputs, batch_targets, batch_domains) in enumerate(loader):
    features = backbone(batch_inputs)  # what the head gets, after any dropout
    logits = head(features)
    risk = F.cross_entropy(logits, batch_targets)
    distance = penalty(features, logits, batch_targets, batch_domains)  # line two
    schedule.prepare(optimizer, step)
    optimizer.zero_grad()
    schedule.combine(risk, distance, step).backward()
    optimizer.step()

print(f"risk {risk.item():.3f}, penalty {distance.item():.5f}, its weight {schedule(step):g}")
