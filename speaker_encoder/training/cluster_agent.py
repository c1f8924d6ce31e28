"""The processes of one machine, started and ended by torch's elastic agent."""

from __future__ import annotations

import signal
import sys
import uuid
from collections.abc import Sequence

from torch.distributed.elastic.agent.server.api import WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

_AT_ONCE_SECONDS = 30
_MONITOR_SECONDS = 0.2


class ProcessAgent(LocalElasticAgent):
    """Starts processes, passes signals on to them, and says how they have ended.

    Args:
        num_processes: how many.
        arguments: of `python -m speaker_encoder`, the same for every process.
        shutdown_seconds: how long they have to end after a signal before they are killed.
    """

    def __init__(self, num_processes: int, arguments: Sequence[str], shutdown_seconds: int) -> None:
        parameters = RendezvousParameters(
            backend="c10d",
            endpoint="localhost:0",
            run_id=uuid.uuid4().hex,
            min_nodes=1,
            max_nodes=1,
        )
        spec = WorkerSpec(
            role="default_role",
            local_world_size=num_processes,
            rdzv_handler=get_rendezvous_handler(parameters),
            entrypoint=sys.executable,
            args=("-m", "speaker_encoder", *arguments),
            max_restarts=0,
            monitor_interval=_MONITOR_SECONDS,
        )
        self.shutdown_seconds = shutdown_seconds
        super().__init__(spec, DefaultLogsSpecs())

    def run_to_the_end(self) -> signal.Signals | None:
        """Runs until all processes have ended; gives the signal that this one got, if any."""
        try:
            self.run()
        except SignalException as error:
            return signal.Signals(error.sigval)
        finally:
            self._rdzv_handler.shutdown()
        return None

    def exit_codes(self) -> dict[int, int]:
        """Gives each process's exit code, less than 0 the signal that has ended it."""
        handlers = getattr(self._pcontext, "subprocess_handlers", {})
        codes = {rank: handler.proc.poll() for rank, handler in handlers.items()}
        # one that not even SIGKILL has ended is as good as killed
        return {rank: -signal.SIGKILL if code is None else code for rank, code in codes.items()}

    def _shutdown(
        self,
        death_sig: signal.Signals = signal.SIGTERM,
        timeout: int = 0,
        is_restart: bool = False,
    ) -> None:
        """Ends the processes, as `run` does at its end; the second Ctrl-C reaches them as well.

        Args:
            death_sig: what they are told.
            timeout: of some versions of torch; ours is `shutdown_seconds`.
            is_restart: of others; nothing is restarted here.
        """
        if self._pcontext is None:
            return
        try:
            self._pcontext.close(death_sig, self.shutdown_seconds)
        except SignalException as again:
            is_at_once = again.sigval == signal.SIGINT  # and so it is for one process
            seconds = _AT_ONCE_SECONDS if is_at_once else self.shutdown_seconds
            self._pcontext.close(again.sigval, seconds)
