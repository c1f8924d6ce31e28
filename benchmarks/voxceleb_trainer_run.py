"""Runs voxceleb_trainer's own `trainSpeakerNet.py` from a checkout, with a clock around it.

Nothing of it is changed on disk. Its class `ModelTrainer` gets the clock around `train_network`,
which is an epoch, and a line is noted at `saveParameters`; what lies between them, its evaluation,
is not counted. It trains on CUDA only: on a machine without, `.cuda()` of a module does nothing and
the trainer's device is the CPU; its GradScaler switches itself off there.
"""

import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from training_clock import TrainingClock

from speaker_encoder.compat import make_torchaudio_extension_optional


def run_voxceleb_trainer(checkout: Path, arguments: Sequence[str], clock: TrainingClock) -> None:
    """Trains as its README says.

    Args:
        checkout: of voxceleb_trainer.
        arguments: of `trainSpeakerNet.py`.
        clock: of the training.
    """
    make_torchaudio_extension_optional()  # its networks import torchaudio
    os.chdir(checkout)
    sys.path.insert(0, str(checkout))
    import SpeakerNet

    _put_clock_around(SpeakerNet.ModelTrainer, clock)
    if not torch.cuda.is_available():
        torch.nn.Module.cuda = lambda self, device=None: self  # type: ignore[method-assign,assignment]
    sys.argv = ["trainSpeakerNet.py", *arguments]
    runpy.run_path("trainSpeakerNet.py", run_name="__main__")


def _put_clock_around(trainer: Any, clock: TrainingClock) -> None:
    """Wraps the methods of the class `ModelTrainer`."""
    initialize, train, save = trainer.__init__, trainer.train_network, trainer.saveParameters

    def initialize_here(self: Any, *values: Any, **keywords: Any) -> None:
        initialize(self, *values, **keywords)
        self.num_steps = 0
        if not torch.cuda.is_available():
            self.device = torch.device("cpu")

    def train_timed(self: Any, loader: Any, *values: Any, **keywords: Any) -> Any:
        clock.start()
        result = train(self, loader, *values, **keywords)
        clock.stop()
        self.num_steps += len(loader)
        return result

    def save_marked(self: Any, path: str, *values: Any, **keywords: Any) -> None:
        save(self, path, *values, **keywords)
        clock.mark(self.num_steps, Path(path))

    trainer.__init__ = initialize_here
    trainer.train_network = train_timed
    trainer.saveParameters = save_marked
