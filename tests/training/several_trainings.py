"""One training after the other in the same processes, run by torchrun; no test."""

import gc
import sys

import torch

from speaker_encoder.training import TrainConfig
from speaker_encoder.training.cluster import join_processes
from speaker_encoder.training.run import train_once

if __name__ == "__main__":
    for path in sys.argv[1:]:
        config = TrainConfig.from_json(path)
        join_processes(config, "cpu")
        train_once(config, "cpu")
    gc.collect()  # as `train` ends: a process whose gloo threads are running may be aborted
    torch.distributed.destroy_process_group()
