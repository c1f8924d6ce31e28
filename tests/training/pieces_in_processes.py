"""Gradients by pieces against those of one graph, for every loss and both kinds of encoders.

Run by torchrun it does so in two processes, and writes how far apart they are.
"""

import gc
import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from every_loss import CHOICES

from speaker_encoder import SpeakerEncoder
from speaker_encoder.losses import build_chosen_loss
from speaker_encoder.training.distributed import GatheredLoss
from speaker_encoder.training.gradient_cache import RandomState, cached_loss, split_batch

NUM_SPEAKERS, NUM_UTTERANCES = 4, 3
FAMILIES = {
    "ecapa": (
        "ecapa",
        {"channels": [16, 16, 16, 16, 48], "attention_channels": 8, "lin_neurons": 24},
    ),
    "wavlm": (  # with all that it draws: dropout, layers left out, masks
        "wavlm-base",
        {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "conv_dim": [16] * 7,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
            "tdnn_dim": [16, 16, 16, 16, 32],
            "xvector_output_dim": 24,
            "layerdrop": 0.3,
            "mask_time_prob": 0.3,
            "mask_time_length": 2,
        },
    ),
}


class Case:
    """A tiny encoder in training with a loss, and a batch: the share of one of the processes."""

    def __init__(
        self,
        family: str,
        loss: str,
        *,
        precision: str | None = None,
        num_utterances: int = NUM_UTTERANCES,
    ) -> None:
        name, encoder_config = FAMILIES[family]
        torch.manual_seed(0)
        self.encoder = SpeakerEncoder.from_name(name, False, encoder_config)
        with torch.no_grad():  # such a small one's embeddings would be next to nothing
            for parameter in self.encoder.parameters():
                if parameter.ndim > 1 and family == "wavlm":
                    parameter *= 6
        choice = CHOICES[loss]
        built = build_chosen_loss(choice, self.encoder.embedding_dim, NUM_SPEAKERS + 2)
        self.encoder.attach_loss(GatheredLoss(built))
        self.encoder.loss_fn.set_step(5)
        self.encoder.freeze_batch_norm()
        self.encoder.train()
        num_utterances = 2 if loss == "nt_xent" else num_utterances
        labels = torch.arange(NUM_SPEAKERS).repeat_interleave(num_utterances)
        waveforms = torch.randn(len(labels), 8000)
        rank, processes = (int(os.environ.get(n, d)) for n, d in (("RANK", 0), ("WORLD_SIZE", 1)))
        self.labels, self.waveforms = (
            labels.chunk(processes)[rank],
            waveforms.chunk(processes)[rank],
        )
        torch.manual_seed(7 + rank)  # of dropout: each process has its own
        if processes == 1:
            AcceleratorState._reset_state()  # it keeps the precision of the first case
        self.accelerator = Accelerator(cpu=True, mixed_precision=precision)
        self.model = self.accelerator.prepare_model(self.encoder)
        self.start = RandomState(torch.device("cpu"))

    def _loss_of(self, embeddings: torch.Tensor) -> torch.Tensor:
        with self.accelerator.autocast():
            return self.encoder.loss_fn(embeddings, self.labels)

    def _gradients(self) -> dict[str, torch.Tensor]:
        found = {
            name: parameter.grad
            for name, parameter in self.encoder.named_parameters()
            if parameter.grad is not None
        }
        self.encoder.zero_grad()
        return found

    def by_pieces(self, size: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss and gradients as training has them with mini_batch_size."""
        self.start.restore()

        def embed(piece: slice) -> torch.Tensor:
            return self.model(input_values=self.waveforms[piece])["embeddings"]

        pieces = split_batch(len(self.labels), size)
        loss, _ = cached_loss(self.accelerator, self.model, pieces, embed, self._loss_of)
        self.accelerator.backward(loss)
        return loss.detach(), self._gradients()

    def at_once(self, size: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The same with one graph, of embeddings that are computed with the same draws."""
        self.start.restore()
        embedded = []
        for piece in split_batch(len(self.labels), size):
            with self.accelerator.autocast():
                embedded.append(self.encoder(self.waveforms[piece]).embeddings)
        loss = self._loss_of(torch.cat(embedded))
        loss.backward()
        found = self._gradients()
        if torch.distributed.is_initialized():
            for gradient in found.values():
                torch.distributed.all_reduce(gradient)
                gradient /= torch.distributed.get_world_size()
        return loss.detach(), found


def relative_difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest over all parameters: of a gradient's own size, or of a part of the largest one's.

    Some gradients are sums that cancel, such as the last bias's where only distances count.
    """
    assert set(found) == set(expected)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    assert 1e-5 < largest < 1e5
    return max(
        float((found[name] - wanted).abs().max()) / max(float(wanted.abs().max()), 0.05 * largest)
        for name, wanted in expected.items()
    )


def compare_all() -> dict[str, tuple[float, float]]:
    """Gives, for each case, the difference of the loss and of the gradients."""
    found = {}
    for family in FAMILIES:
        for loss in CHOICES:
            case = Case(family, loss)
            value, gradients = case.by_pieces(2)
            wanted, expected = case.at_once(2)
            difference = abs(float(value - wanted)) / abs(float(wanted))
            found[f"{family}, {loss}"] = (difference, relative_difference(gradients, expected))
    return found


def main() -> None:
    """Writes how far apart they are."""
    path = Path(sys.argv[1]) / f"{os.environ['RANK']}.json"
    path.write_text(json.dumps(compare_all()))
    gc.collect()  # models that outlive their processes' group may wait for it for ever
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
