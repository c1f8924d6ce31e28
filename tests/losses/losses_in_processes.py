"""Run by torchrun: writes each loss's gradients over the whole batch that two processes share."""

import gc
import os
import sys

import torch
import torch.distributed
from every_loss import CHOICES
from torch.nn.parallel import DistributedDataParallel

from speaker_encoder.losses import build_chosen_loss
from speaker_encoder.training.distributed import GatheredLoss

NUM_SPEAKERS, NUM_UTTERANCES, DIM = 6, 2, 5


class Projected(torch.nn.Module):
    """A linear encoder with a loss, as the trainer holds them."""

    def __init__(self, choice) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = torch.nn.Linear(7, DIM).double()
        self.loss_fn = GatheredLoss(build_chosen_loss(choice, DIM, NUM_SPEAKERS + 2).double())
        self.loss_fn.set_step(5)

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.loss_fn(self.encoder(inputs), labels)


def whole_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """(B, 7) inputs and (B,) labels."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(NUM_SPEAKERS).repeat_interleave(NUM_UTTERANCES)
    inputs = torch.randn(len(labels), 7, generator=generator, dtype=torch.float64)
    return inputs, labels[torch.randperm(len(labels), generator=generator)]


def main() -> None:
    """Writes value and gradients by loss."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    inputs, labels = (part.chunk(2)[rank] for part in whole_batch())
    found = {}
    for name, choice in CHOICES.items():
        model = DistributedDataParallel(Projected(choice))
        value = model(inputs, labels)
        value.backward()
        gradients = {key: p.grad for key, p in model.module.named_parameters()}
        found[name] = (value.detach(), gradients)
    torch.save(found, os.path.join(sys.argv[1], f"{rank}.pt"))
    del model
    gc.collect()  # models that outlive their processes' group may wait for it for ever
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
