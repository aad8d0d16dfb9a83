"""A Lightning module: the penalty is a part of the module, the batch brings the domains.

pip install lightning
python examples/own_loop/lightning_module.py
"""

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import hessalign as ha
from hessalign.loop import DomainBalancedSampler, gather_samples


class AlignedClassifier(lightning.LightningModule):
    """A network whose head is aligned across domains."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU())
        self.head = torch.nn.Linear(16, 2)
        self.penalty = ha.HessianAlignment("diagonal", alpha=1.0, beta=1.0)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Risk of this process's samples, and the penalty of all processes' samples."""
        inputs, targets, domains = batch
        features = self.backbone(inputs)
        logits = self.head(features)
        risk = F.cross_entropy(logits, targets)
        penalty = self.penalty(*gather_samples(features, logits, targets, domains))
        self.log_dict({"risk": risk, "penalty": penalty})
        return risk + penalty

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=3e-3)


torch.manual_seed(0)
domains = torch.arange(300) % 3
targets = torch.randint(0, 2, (300,))
inputs = torch.randn(300, 8) + 2.0 * targets.unsqueeze(1) * torch.eye(8)[domains]
sampler = DomainBalancedSampler(domains, samples_per_domain=16, batches=20)
loader = DataLoader(TensorDataset(inputs, targets, domains), batch_sampler=sampler)

trainer = lightning.Trainer(
    max_epochs=1,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    use_distributed_sampler=False,  # the sampler above shares batches itself: rank=, world_size=
)
trainer.fit(AlignedClassifier(), loader)
print({name: round(float(value), 4) for name, value in trainer.callback_metrics.items()})
