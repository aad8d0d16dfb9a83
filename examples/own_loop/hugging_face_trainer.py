"""Hugging Face's Trainer: ``compute_loss`` adds the penalty; a hook brings what the classifier gets.

pip install transformers accelerate
python examples/own_loop/hugging_face_trainer.py
"""

import tempfile
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import hessalign as ha


class Reviews(Dataset[dict[str, Tensor]]):
    """Random token ids from three shops; token 1 or 2 in front tells the class."""

    def __init__(self, size: int = 96) -> None:
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.randint(0, 2, (size,), generator=generator)
        self.domains = torch.arange(size) % 3
        self.tokens = torch.randint(3, 30, (size, 12), generator=generator) + 5 * self.domains.unsqueeze(1)
        self.tokens[:, 0] = 1 + self.labels

    def __len__(self) -> int:
        """Number of reviews."""
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One review; its domain comes along as a column of its own."""
        return {
            "input_ids": self.tokens[index],
            "labels": self.labels[index],
            "domains": self.domains[index],
        }


class AlignedTrainer(Trainer):
    """A Trainer whose loss has an alignment penalty over the batch's domains."""

    def __init__(self, *args: Any, penalty: ha.HessianAlignment, **options: Any) -> None:
        super().__init__(*args, **options)
        self.penalty = penalty
        self.seen: dict[str, Tensor] = {}
        # The input of the linear head, after dropout, whatever network stands before it.
        self.model.classifier.register_forward_pre_hook(
            lambda _, inputs: self.seen.update(features=inputs[0])
        )

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, **options: Any
    ) -> Any:
        """The model's own loss, and the penalty."""
        domains = inputs.pop("domains")
        outputs = model(**inputs)
        penalty = self.penalty(self.seen["features"], outputs.logits, inputs["labels"], domains)
        loss = outputs.loss + penalty
        return (loss, outputs) if return_outputs else loss


torch.manual_seed(0)
config = BertConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    num_labels=2,
)
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=6,
        per_device_train_batch_size=24,
        logging_steps=2,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,  # otherwise the Trainer drops the domains
    )
    trainer = AlignedTrainer(
        model=BertForSequenceClassification(config),
        args=arguments,
        train_dataset=Reviews(),
        penalty=ha.HessianAlignment("hgp", alpha=0.1, beta=1.0),
    )
    result = trainer.train()
print(f"loss after {result.global_step} steps: {result.training_loss:.3f}")
