"""What is written when all utterances are embedded: averages, tables, report and manifest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speaker_encoder.errors import EXIT_DONE, EXIT_PARTLY, UserError
from speaker_encoder.export.files import staged_files, write_bytes_atomically, write_if_other
from speaker_encoder.export.formats import FORMATS, EmbeddingTable, TableFormat
from speaker_encoder.export.formats.format import TableRow
from speaker_encoder.export.leftovers import remove_outdated
from speaker_encoder.export.manifest import (
    Provenance,
    package_versions,
    read_manifest,
    write_entry,
)
from speaker_encoder.export.options import ExportOptions
from speaker_encoder.export.report import (
    SpeakerReport,
    average_speakers,
    failure_list,
    merge_figures,
)
from speaker_encoder.export.source import FailedFile, Item, Source
from speaker_encoder.export.store import Store, locked
from speaker_encoder.export.targets import Targets

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ExportOutcome:
    """What an export did.

    Attributes:
        exit_code: 0 done, 3 done but some files failed.
        num_utterances: that have an embedding now.
        num_computed: that were computed by this run.
        num_speakers: that have an embedding now.
        failures: files without an embedding.
        report_path: None where nothing was written.
        message: the sums in words.
    """

    exit_code: int
    num_utterances: int
    num_computed: int
    num_speakers: int
    failures: tuple[FailedFile, ...]
    report_path: Path | None
    message: str


class Conclusion:
    """Ends an export; for its main process.

    Args:
        options: of the export.
        source: the corpus.
        targets: where the files go.
        provenance: what the embeddings are made with.
        embedding_dim: D.
    """

    def __init__(
        self,
        options: ExportOptions,
        source: Source,
        targets: Targets,
        provenance: Provenance,
        embedding_dim: int,
    ) -> None:
        self._options = options
        self._source = source
        self._targets = targets
        self._provenance = provenance
        self._embedding_dim = embedding_dim

    def conclude(self, store: Store) -> ExportOutcome:
        """Writes averages, tables, report and manifest.

        Raises:
            UserError: there is not one embedding.
        """
        failures = [*self._source.failures, *store.failures]
        rows = [
            TableRow(u.utterance_id, u.speaker_id, item.relative_path)
            for item in self._source.items
            if store.has(item)
            for u in (item.utterance,)
        ]
        vectors, speakers = average_speakers(self._source, store, failures, self._options.average)
        tables: dict[str, list[str]] = {}
        if rows:
            self._write_speakers(vectors)
            tables = self._write_tables(store, rows, vectors)
        remove_outdated(self._targets, store, vectors)
        figures = merge_figures(store.figures)
        report = self._report(rows, speakers, failures, figures)
        path = self._options.report_path
        report_path = Path(path) if path is not None else self._targets.report_path
        _write_json(report_path, report)
        with locked(self._targets.work_dir):
            before = read_manifest(self._targets.root).get(self._targets.tag) or {}
            entry = {
                **self._provenance.as_entry(),
                "state": "complete" if not failures else "complete but for the failures",
                "corpus": {"layout": self._source.layout, "dataset_name": self._source.label},
                "formats": sorted(self._options.formats),
                "tables": {**before.get("tables", {}), **tables},
                "counts": report["counts"],
                "failures": report["failures"],
                "packages": package_versions(),
            }
            write_entry(self._targets.root, self._targets.tag, entry)
            store.compact()
        if not rows:
            shown = "\n".join(f"  {f.path}: {f.reason}" for f in failures[:5])
            raise UserError(f"All {len(failures)} files failed; see {report_path}.\n{shown}")
        num_computed = int(figures["utterances"])
        return ExportOutcome(
            EXIT_PARTLY if failures else EXIT_DONE,
            len(rows),
            num_computed,
            len(vectors),
            tuple(failures),
            report_path,
            _describe(report, num_computed, report_path),
        )

    def _write_speakers(self, vectors: dict[str, NDArray[Any]]) -> None:
        """Writes the averages that are new or changed."""
        first: dict[str, Item] = {}
        for item in self._source.items:
            first.setdefault(item.utterance.speaker_id, item)
        for speaker, vector in vectors.items():
            for form in self._targets.file_formats:
                path = self._targets.speaker_path(speaker, first[speaker], form)
                write_if_other(path, form.content(vector))

    def _write_tables(
        self, store: Store, rows: list[TableRow], vectors: dict[str, NDArray[Any]]
    ) -> dict[str, list[str]]:
        """Writes the tables; the names of the files of each."""
        items = {item.utterance.utterance_id: item for item in self._source.items}
        table = EmbeddingTable(
            self._source.label,
            self._embedding_dim,
            rows,
            lambda utterance_id: store.vector(items[utterance_id]),
            vectors,
        )
        written: dict[str, list[str]] = {}
        for name in self._options.formats:
            form = FORMATS[name]
            if isinstance(form, TableFormat):
                folder = self._targets.table_dir(name)
                with staged_files(folder) as staging:
                    form.write(table, staging, folder)
                    written[name] = sorted(path.name for path in staging.iterdir())
        return written

    def _report(
        self,
        rows: list[TableRow],
        speakers: dict[str, SpeakerReport],
        failures: list[FailedFile],
        figures: dict[str, float],
    ) -> dict[str, Any]:
        return {
            "corpus": {"layout": self._source.layout, "dataset_name": self._source.label},
            "model": self._provenance.model,
            "options": {
                **self._provenance.embedding_settings,
                **self._provenance.speaker_settings,
                "formats": list(self._options.formats),
            },
            "counts": {
                "utterances": len(rows),
                "speakers": sum(speaker.num_utterances > 0 for speaker in speakers.values()),
                "hours": round(sum(s.seconds for s in speakers.values()) / 3600, 4),
                "failures": len(failures),
                "left_out": dict(sorted(self._source.left_out.items())),
            },
            "this_run": figures,
            "failures": failure_list(failures),
            "speakers": {name: report.as_dict() for name, report in speakers.items()},
        }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_bytes_atomically(path, text.encode("utf-8", "surrogateescape"))


def _describe(report: dict[str, Any], num_computed: int, report_path: Path) -> str:
    counts, figures = report["counts"], report["this_run"]
    lines = [
        f"{counts['utterances']} utterances of {counts['speakers']} speakers have embeddings "
        f"({counts['hours']:.2f} hours); {num_computed} were computed now"
    ]
    if num_computed and figures["wall_seconds"]:
        speed = figures["utterances"] / figures["wall_seconds"]
        lines[0] += (
            f", {speed:.1f} a second, {figures['audio_seconds'] / figures['wall_seconds']:.0f} "
            "times real time"
        )
    for reason, count in counts["left_out"].items():
        lines.append(f"left out, {reason}: {count}")
    shown = report["failures"][:5]
    lines += [f"failed: {row['path']}: {row['reason']}" for row in shown]
    if counts["failures"] > len(shown):
        lines.append(f"and {counts['failures'] - len(shown)} more failed")
    outliers = {
        name: speaker["outliers"]
        for name, speaker in report["speakers"].items()
        if "outliers" in speaker
    }
    for name, found in list(outliers.items())[:5]:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        lines.append(f"left out of the average of {name}: {found[0]['utterance']}{more}")
    lines.append(f"report: {report_path}")
    return "\n".join(lines)
