"""Embeds a corpus: from its audio to the files that TTS systems read."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speaker_encoder.errors import EXIT_DONE, UserError
from speaker_encoder.export.conclusion import Conclusion, ExportOutcome
from speaker_encoder.export.division import Divided
from speaker_encoder.export.embedding import EmbeddedUnit, batch_seconds_for, plan_export
from speaker_encoder.export.engines import Engine, check_engine, open_engine
from speaker_encoder.export.files import (
    check_writable,
    explained_full_disk,
    write_bytes_atomically,
)
from speaker_encoder.export.formats import FORMATS, TableFormat
from speaker_encoder.export.lanes import Work
from speaker_encoder.export.leftovers import remove_former, rewrite_other
from speaker_encoder.export.manifest import (
    Provenance,
    read_manifest,
    refuse_other,
    write_entry,
)
from speaker_encoder.export.model import (
    choose_device,
    describe_model,
    file_tag,
    load_encoder,
    model_folder,
)
from speaker_encoder.export.options import ExportOptions
from speaker_encoder.export.planning import Unit
from speaker_encoder.export.pretrained_space import PretrainedSpace, read_space
from speaker_encoder.export.processes import Processes
from speaker_encoder.export.progress import progress_bar
from speaker_encoder.export.source import FailedFile, Source, leave_out_by_length, open_source
from speaker_encoder.export.store import PartWriter, Store, clear_store, locked, refuse_held
from speaker_encoder.export.targets import Targets

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder


def embed_corpus(
    options: ExportOptions,
    *,
    encoder: SpeakerEncoder | None = None,
    source: Source | None = None,
) -> ExportOutcome:
    """Writes the embeddings of a corpus.

    Args:
        options: what is asked for.
        encoder: a loaded encoder; None loads the one that the options name.
        source: a corpus that is known already; None scans the one that the options name.

    Returns:
        What was done.

    Raises:
        UserError: something that the user must change; what is written so far is whole, and the
            same call goes on from it.
    """
    options.check()
    processes = Processes()
    device = choose_device(options.model_device)
    source = source or open_source(options)
    leave_out_by_length(source, options)
    output_dir = None if options.output_dir is None else Path(options.output_dir).expanduser()
    targets = Targets(source, output_dir, file_tag(options.model_name), options.formats)
    if not options.dry_run:
        with explained_full_disk():
            targets.check_writable()
            if options.report_path is not None:
                check_writable(Path(options.report_path).absolute().parent, "the report's folder")
    encoder = (encoder or load_encoder(options)).eval()
    for name in options.formats:
        FORMATS[name].check(encoder.embedding_dim)
    check_engine(encoder, options, device)
    space = _space_of(options, encoder)
    provenance = Provenance(
        describe_model(encoder, options),
        {**options.embedding_settings(), **(space.settings() if space else {})},
        options.speaker_settings(),
    )
    if device.type == "cuda" and device.index is None and processes.count > 1:
        device = type(device)("cuda", processes.local_rank)
    if device.type == "cpu":
        from speaker_encoder.modeling.cpu_kernels import keep_freed_memory

        keep_freed_memory()
    torch_module: Any = encoder
    torch_module.to(device)
    export = _Export(options, source, targets, encoder, provenance, processes, space)
    processes.start()
    try:
        with explained_full_disk():
            return export.run()
    finally:
        processes.stop()


def _space_of(options: ExportOptions, encoder: SpeakerEncoder) -> PretrainedSpace | None:
    """The map of the encoder's embeddings to another space, where one is wanted.

    Raises:
        UserError: it has none.
    """
    if options.space == "own":
        return None
    return read_space(model_folder(options.checkpoint or options.model_name), encoder)


class _Export:
    """One export in one process."""

    def __init__(
        self,
        options: ExportOptions,
        source: Source,
        targets: Targets,
        encoder: SpeakerEncoder,
        provenance: Provenance,
        processes: Processes,
        space: PretrainedSpace | None,
    ) -> None:
        self._options = options
        self._source = source
        self._targets = targets
        self._encoder = encoder
        self._provenance = provenance
        self._processes = processes
        self._space = space

    def run(self) -> ExportOutcome:
        """Does what is left to do."""
        units = plan_export(self._source, self._encoder, self._options)
        if self._options.dry_run:
            return self._dry_run(units)
        units = units[self._processes.rank :: self._processes.count]
        engine = self._processes.together(lambda: self._open_engine(units))
        self._processes.together(self._claim)
        run_id = self._processes.share(uuid.uuid4().hex)
        store = self._new_store(run_id).load()
        self._embed(units, engine, store, run_id)
        self._processes.wait()
        return self._finish(self._new_store(run_id).load())

    def _new_store(self, run_id: str) -> Store:
        identity, dim = self._provenance.identity, self._encoder.embedding_dim
        return Store(self._targets.store_dir, identity, dim, run_id)

    def _entry(self) -> dict[str, Any] | None:
        """The manifest's entry of this model.

        Raises:
            UserError: it is of something else, which must not be overwritten.
        """
        root, tag, overwrite = self._targets.root, self._targets.tag, self._options.overwrite
        entry = read_manifest(root).get(tag)
        refuse_other(root, tag, entry, self._provenance, overwrite)
        return entry

    def _replaces(self, entry: dict[str, Any] | None) -> bool:
        """Do these embeddings take the place of others."""
        identity = (entry or {}).get("identity")
        return self._options.overwrite and identity != self._provenance.identity

    def _open_engine(self, units: list[Unit]) -> Engine:
        """Gives the engine: before it is known to serve, nothing on the disk is changed."""
        entry = self._entry()
        if entry is None and not self._options.overwrite and self._processes.is_main:
            self._targets.refuse_foreign()
        if not self._options.is_reference and not self._replaces(entry):
            units = self._units_left(units, self._new_store("").load())
        return open_engine(self._encoder, self._source, units, self._options)

    def _claim(self) -> None:
        """Writes down what is being made here, unless something else is; by the main process."""
        if not self._processes.is_main:
            return
        targets = self._targets
        with locked(targets.work_dir):
            entry = self._entry() or {}
            new = {**self._provenance.as_entry(), "state": "unfinished"}
            if self._replaces(entry):
                refuse_held(targets.store_dir)
                remove_former(targets, entry)
                clear_store(targets.store_dir)
            elif "tables" in entry:
                new["tables"] = entry["tables"]
            write_entry(targets.root, targets.tag, new)

    def _units_left(self, units: list[Unit], store: Store) -> list[Unit]:
        """The units in which an embedding is missing."""
        is_single = batch_seconds_for(self._encoder, self._options) == 0
        left = []
        for unit in units:
            missing = tuple(i for i in unit.indices if not store.has(self._source.items[i]))
            if missing:
                # Batch mates must be the same as in a run that was never stopped.
                left.append(replace(unit, indices=missing) if is_single else unit)
        return left

    def _embed(self, units: list[Unit], engine: Engine, store: Store, run_id: str) -> None:
        left = self._units_left(units, store)
        items = (self._source.items[index] for unit in units for index in unit.indices)
        rewrite_other(items, self._targets, store)
        part = PartWriter(self._targets.store_dir, self._provenance.identity, run_id)
        progress = progress_bar(self._source, left, store, self._options, self._processes)
        figures: dict[str, float] = {"utterances": 0.0, "audio_seconds": 0.0}
        start = time.perf_counter()

        def consume(unit: Unit, result: EmbeddedUnit) -> None:
            self._write_unit(unit, result, store, part)
            seconds = sum(self._source.items[i].utterance.seconds for i in unit.indices)
            result.count(utterances=len(result.vectors), audio_seconds=seconds)
            for name, value in result.figures.items():
                figures[name] = figures.get(name, 0.0) + value
            progress.advance(len(unit.indices), seconds)

        try:
            divided = Divided(Work(self._encoder, engine, self._source, self._options, consume))
            divided.embed(left)
            figures["wall_seconds"] = time.perf_counter() - start
            figures["lane_seconds"] = divided.lane_seconds
            part.add_figures(figures)
        finally:
            progress.close()
            part.close()

    def _write_unit(self, unit: Unit, result: EmbeddedUnit, store: Store, part: PartWriter) -> None:
        """Writes a unit's files first and notes them then: what is noted is there."""
        items, new = self._source.items, []
        for index, vector in sorted(result.vectors.items()):
            item = items[index]
            if store.has(item):
                continue
            if self._space is not None:
                vector = self._space.map(vector)
            for form in self._targets.file_formats:
                path = self._targets.utterance_path(item, form)
                write_bytes_atomically(path, form.content(vector))
            new.append((item, vector))
        part.add(new)
        for index, reason in sorted(result.failures.items()):
            name, who = items[index].relative_path, items[index].utterance
            part.add_failure(FailedFile(name, reason, who.speaker_id, who.utterance_id))

    def _finish(self, store: Store) -> ExportOutcome:
        """Averages, tables, report and manifest, by the main process; the same outcome for all."""
        outcome: ExportOutcome | UserError | None = None
        if self._processes.is_main:
            try:
                outcome = Conclusion(
                    self._options,
                    self._source,
                    self._targets,
                    self._provenance,
                    self._encoder.embedding_dim,
                ).conclude(store)
            except UserError as error:
                outcome = error
        outcome = self._processes.share(outcome)
        if isinstance(outcome, UserError):
            raise outcome
        assert outcome is not None
        return outcome

    def _dry_run(self, units: list[Unit]) -> ExportOutcome:
        """Says what would be done."""
        targets, items = self._targets, self._source.items
        self._entry()
        store = self._new_store("").load()
        left = [i for unit in units for i in unit.indices if not store.has(items[i])]
        hours = sum(items[i].utterance.seconds for i in left) / 3600
        num_speakers = len({item.utterance.speaker_id for item in items})
        places = [str(targets.table_dir(n)) for n in self._options.formats
                  if isinstance(FORMATS[n], TableFormat)]  # fmt: skip
        places += [str(targets.utterance_path(items[0], f)) for f in targets.file_formats if items]
        message = (
            f"dry run: {len(items)} utterances of {num_speakers} speakers, layout "
            f"{self._source.layout}; {len(left)} to embed ({hours:.2f} hours) in {len(units)} "
            f"units; {len(self._source.failures)} cannot be opened\nwould write: "
            + "\n             ".join(places)
        )
        return ExportOutcome(
            EXIT_DONE, len(items) - len(left), 0, num_speakers,
            tuple(self._source.failures), None, message,
        )  # fmt: skip
