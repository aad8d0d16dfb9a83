"""Several GPUs (or, without any, processes on the CPU): gather the samples, then compute the penalty.

torchrun --nproc-per-node 2 examples/own_loop/several_gpus.py
"""

import gc
import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import hessalign as ha
from hessalign.loop import DomainBalancedSampler, gather_samples


class Network(nn.Module):
    """Returns features and logits: DistributedDataParallel must see both come out of one forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(8, 16), nn.ReLU())
        self.head = nn.Linear(16, 2)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``(n, 16)`` and logits ``(n, 2)``."""
        features = self.backbone(inputs)
        return features, self.head(features)


def train(rank: int, world_size: int, device: torch.device) -> float:
    """The penalty of the last whole batch."""
    generator = torch.Generator().manual_seed(0)
    domains = torch.arange(300) % 3
    targets = torch.randint(0, 2, (300,), generator=generator)
    inputs = torch.randn(300, 8, generator=generator) + 2.0 * targets.unsqueeze(1) * torch.eye(8)[domains]
    sampler = DomainBalancedSampler(domains, 8, batches=20, rank=rank, world_size=world_size)
    loader = DataLoader(TensorDataset(inputs, targets, domains), batch_sampler=sampler)

    torch.manual_seed(0)
    model = DistributedDataParallel(Network().to(device))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    penalty = ha.HessianAlignment("hgp", alpha=1.0, beta=1.0)

    for batch in loader:
        own_inputs, own_targets, own_domains = (part.to(device) for part in batch)
        features, logits = model(own_inputs)
        risk = F.cross_entropy(logits, own_targets)  # a mean over samples: each process its own
        distance = penalty(*gather_samples(features, logits, own_targets, own_domains))  # of the whole batch
        optimizer.zero_grad()
        (risk + distance).backward()
        optimizer.step()
    return distance.item()


gpus = torch.cuda.is_available()
dist.init_process_group("nccl" if gpus else "gloo")
rank, world_size = dist.get_rank(), dist.get_world_size()
device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpus else torch.device("cpu")
penalty_of_last = train(rank, world_size, device)
if rank == 0:
    print(f"{world_size} processes, penalty of the last whole batch {penalty_of_last:.5f}")
# Gloo's threads abort a process that ends while they hold the last of a model's tensors.
gc.collect()
dist.barrier()
dist.destroy_process_group()
