"""How many crops' graph fits into the memory of a device at once."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from speaker_encoder.modeling import SpeakerEncoder
from speaker_encoder.modeling.batching import set_batch_norm_mode
from speaker_encoder.training.free_memory import free_bytes
from speaker_encoder.training.gradient_cache import nothing_changed

_SHARE = 0.5  # of the free memory: the rest is for gradients, the optimizer and the data
_LEAST = 3  # crops: even pieces of up to so many never are one crop, which has no statistics
_STATES = 2  # tensors that Adam keeps of each parameter


def largest_piece(encoder: SpeakerEncoder, batch_size: int, num_samples: int) -> int:
    """Gives the largest number of crops whose graph fits into the device's memory.

    On a CUDA device that is tried, from the whole batch on, halving where it does not. On a CPU
    it is counted: the tensors that the graph of a few crops holds, twice, in half of the memory
    that is free, shared by the processes of this machine. No process waits for another meanwhile.

    Args:
        encoder: with the precision of the training (autocast) around the call; it is left in
            training mode.
        batch_size: crops of a batch, of this process.
        num_samples: length of the longest crop.

    Returns:
        At least 3, unless the batch has fewer crops; 0: not even so few fit.
    """
    if batch_size <= _LEAST:
        return batch_size

    def embed(num_crops: int) -> torch.Tensor:
        waveforms = torch.randn(num_crops, num_samples, device=encoder.device) / 10
        return encoder(waveforms).embeddings

    encoder.train()
    with nothing_changed(encoder):
        # Statistics that are shared by processes would make each wait for the others.
        set_batch_norm_mode(encoder.backbone, False)
        try:
            if encoder.device.type == "cuda":
                learnt = [one for one in encoder.parameters() if one.requires_grad]
                room = [torch.empty_like(one) for one in learnt for _ in range(_STATES)]
                size = _largest_tried(embed, batch_size)
                del room
                torch.cuda.empty_cache()
                return size
            few = min(2 * _LEAST, batch_size)
            per_crop = (graph_bytes(embed, few) - graph_bytes(embed, _LEAST)) / (few - _LEAST)
        finally:
            encoder.train()
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    free = free_bytes() / processes
    if free < _LEAST * per_crop:
        return 0
    return max(_LEAST, min(batch_size, int(_SHARE * free / (2 * per_crop))))


def _largest_tried(embed: Callable[[int], torch.Tensor], batch_size: int) -> int:
    size = batch_size
    while True:
        try:
            embed(size).sum().backward()
            return size
        except torch.OutOfMemoryError:
            if size <= _LEAST:
                return 0
        size = max(_LEAST, -(-size // 2))
        torch.cuda.empty_cache()


def graph_bytes(embed: Callable[[int], torch.Tensor], num_crops: int) -> int:
    """Gives the bytes of all tensors that the graph of so many crops' embeddings holds."""
    held: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        """Counts a storage once, however many views of it are held."""
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        embed(num_crops)
    return sum(held.values())
