"""Several processes of one export: torchrun's numbers, and waiting for each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from speaker_encoder.errors import UserError

_Result = TypeVar("_Result")

_WAIT = timedelta(days=14)
"""One process may be done long before another."""


class Processes:
    """The processes of this export; one alone without a launcher."""

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self._owns_group = False

    @property
    def is_main(self) -> bool:
        """Is this the process that writes averages, report and manifest."""
        return self.rank == 0

    def start(self) -> None:
        """Meets the other processes."""
        if self.count == 1:
            return
        import torch.distributed

        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo", timeout=_WAIT)
            self._owns_group = True

    def share(self, value: Any) -> Any:
        """Gives every process the main process's value."""
        if self.count == 1:
            return value
        import torch.distributed

        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    def together(self, do: Callable[[], _Result]) -> _Result:
        """Does something in every process; where one of them refuses, all do.

        Returns:
            What this process made.

        Raises:
            UserError: the first that a process raised.
        """
        if self.count == 1:
            return do()
        import torch.distributed

        made: list[_Result] = []
        refusal: UserError | None = None
        try:
            made.append(do())
        except UserError as error:
            refusal = error
        refusals: list[UserError | None] = [None] * self.count
        torch.distributed.all_gather_object(refusals, refusal)
        for found in refusals:
            if found is not None:
                raise found
        return made[0]

    def wait(self) -> None:
        """Waits until all processes are here."""
        if self.count > 1:
            import torch.distributed

            torch.distributed.barrier()

    def stop(self) -> None:
        """Parts from the other processes."""
        if self._owns_group:
            import torch.distributed

            torch.distributed.destroy_process_group()
