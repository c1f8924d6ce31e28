"""The recipe `auto`: keys that the config does not give, chosen from the corpus and the encoder."""

from __future__ import annotations

import json
import logging
import math
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from speaker_encoder.training.data import scan_training
from speaker_encoder.training.distributed import is_main_process, num_processes, share_from_main
from speaker_encoder.training.recipe_facts import (
    CorpusFacts,
    EncoderFacts,
    describe_encoder,
    selected_utterances,
)
from speaker_encoder.training.recipe_table import (
    CHOSEN,
    DVECTOR,
    MEASURED,
    OF_VALIDATION,
    RECIPE_KEYS,
    TRANSFERRED,
    Source,
    contradicted_by,
    rows_for,
)
from speaker_encoder.training.resume import as_started, write_config

if TYPE_CHECKING:
    from speaker_encoder.corpora import Corpus
    from speaker_encoder.training.config import TrainConfig
    from speaker_encoder.training.run_dir import RunDirectory

_GIVEN = "given by the config"
_MEASURED_SPEAKERS = (10, 170)
_MEASURED_HOURS = 1.0
_WIDTH = 100
_VALUE_WIDTH = 10

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A key, the value that it has, and why."""

    key: str
    value: Any
    why: str
    source: Source | None = None


def settle_recipe(config: TrainConfig, run: RunDirectory) -> tuple[TrainConfig, Corpus | None]:
    """Gives the config of a run with all its values, and the training corpus if it was scanned.

    A run that goes on has the values that it was started with; another one's are chosen, printed,
    and written to its `train_config.json`.

    Args:
        config: of the run.
        run: its directory, opened.

    Raises:
        UserError: as `fill_recipe`.
    """
    if not config.recipe:
        return config, None
    settled = as_started(config, run)
    if not settled.left_to_recipe:
        origin = "the run was started with" if config.left_to_recipe else "the config gives"
        _logger.info("recipe auto: the values that %s, %s", origin, run.config_path)
        return settled, None
    settled, corpus = fill_recipe(config)
    if is_main_process():
        write_config(settled, run)
    return settled, corpus


def fill_recipe(config: TrainConfig) -> tuple[TrainConfig, Corpus]:
    """Chooses what the config leaves to its recipe, and prints it; the same in all processes.

    Args:
        config: with keys that are left to the recipe.

    Returns:
        The config with all its values given, and the training corpus, scanned.

    Raises:
        UserError: the corpus or the encoder cannot be had, or a value chosen contradicts one that
            is given.
    """
    corpus = scan_training(config)
    chosen: dict[str, Any] = {}
    if is_main_process():
        utterances = selected_utterances(config, corpus.utterances)
        corpus_facts, encoder_facts = CorpusFacts.of(utterances), describe_encoder(config)
        entries = choose(config, corpus_facts, encoder_facts)
        chosen = {entry.key: entry.value for entry in entries}
        title = f"{config.model_name} ({encoder_facts.family}, {encoder_facts.start})"
        _logger.info("%s", format_entries(f"{title}; {corpus_facts}", entries))
    return config.completed(share_from_main(chosen)), corpus


def choose(config: TrainConfig, corpus: CorpusFacts, encoder: EncoderFacts) -> list[Entry]:
    """Gives every key that the table has for this corpus and encoder, in the table's order.

    What the config gives stays; what contradicts it is left as it is without a recipe.
    """
    found: dict[str, tuple[Any, Source]] = {}
    for row in rows_for(encoder.family, encoder.start, corpus.num_utterances, corpus.hours):
        found.update({key: (value, row.source) for key, value in row.values.items()})
    entries: list[Entry] = []
    values = {key: getattr(config, key) for key in RECIPE_KEYS}
    for key in RECIPE_KEYS:
        value, source = found.get(key, (None, CHOSEN))
        if value is None:
            continue
        obstacle = _obstacle(config, key)
        if key not in config.left_to_recipe:
            entry = Entry(key, values[key], _GIVEN)
        elif obstacle is not None:
            entry = Entry(key, values[key], obstacle)
        else:
            source = _as_far_as_measured(source, corpus, encoder)
            entry = Entry(key, value, source.label, source)
            entry = _bounded(entry, config, corpus, encoder, values["utterances_per_speaker"])
        entries.append(entry)
        values[key] = entry.value
    return entries


def _obstacle(config: TrainConfig, key: str) -> str | None:
    """Says why the recipe leaves a key alone; None: it does not."""
    if key in OF_VALIDATION and config.val_data_root is None:
        return "no validation data"
    contradicted = contradicted_by(config, key)
    return contradicted and f"{contradicted} is given"


def _as_far_as_measured(source: Source, corpus: CorpusFacts, encoder: EncoderFacts) -> Source:
    """Calls measured only what was measured with such an encoder and so much speech."""
    least, most = _MEASURED_SPEAKERS
    is_within = least <= corpus.num_speakers <= most and corpus.hours <= _MEASURED_HOURS
    is_measured = is_within and encoder.family == DVECTOR
    return TRANSFERRED if source is MEASURED and not is_measured else source


def _bounded(
    entry: Entry,
    config: TrainConfig,
    corpus: CorpusFacts,
    encoder: EncoderFacts,
    utterances_per_speaker: int,
) -> Entry:
    """Gives an entry that this corpus allows: what a batch needs of it, and how long a crop is."""
    value: Any
    if entry.key == "utterances_per_speaker":
        value, why = _utterances_per_speaker(entry.value, config, corpus)
    elif entry.key == "speakers_per_batch":
        value, why = _speakers_per_batch(entry.value, config, corpus, utterances_per_speaker)
    elif entry.key == "window_size_s":
        value, why = _window(entry.value, corpus, encoder)
    else:
        return entry
    if value == entry.value:
        return entry
    return replace(entry, value=value, why=f"{why}; else {_shown(entry.value)}, {entry.why}")


def _utterances_per_speaker(
    wanted: int, config: TrainConfig, corpus: CorpusFacts
) -> tuple[int, str]:
    """Gives K, at least 2, and what it is bounded by: what half of the speakers, or all, have."""
    if config.few_utterances == "error":
        most, why = corpus.counts[0], f"a speaker has only {corpus.counts[0]}"
    else:
        most = int(statistics.median_low(corpus.counts))
        why = f"half of the speakers have no more than {most}"
    if (cap := config.max_utterances_per_speaker) is not None and cap < most:
        most, why = cap, "max_utterances_per_speaker"
    return max(2, min(wanted, most)), why


def _speakers_per_batch(
    wanted: int, config: TrainConfig, corpus: CorpusFacts, utterances_per_speaker: int
) -> tuple[int, str]:
    """Gives P, a multiple of the processes, and what it is bounded by: the speakers there are."""
    num_speakers, processes = corpus.num_speakers, _planned_processes(config)
    if config.few_utterances == "drop":
        num_speakers = sum(count >= utterances_per_speaker for count in corpus.counts)
    fitting = min(wanted, num_speakers) // processes * processes
    why = f"{num_speakers} speakers" + (f", {processes} processes" if processes > 1 else "")
    return max(2, processes, fitting), why


def _planned_processes(config: TrainConfig) -> int:
    return max(num_processes(), len(config.data_parallel or ()))


def _window(
    wanted: float | Sequence[float], corpus: CorpusFacts, encoder: EncoderFacts
) -> tuple[float | list[float], str]:
    """Gives the crop's length, or its range, and what it is bounded by: half of the utterances."""
    most = max(math.floor(10 * corpus.median_seconds) / 10, encoder.least_seconds)
    why = f"median {corpus.median_seconds:.1f} s"
    ends = [wanted] if isinstance(wanted, (int, float)) else wanted
    fitting = sorted({max(encoder.least_seconds, min(end, most)) for end in ends})
    return fitting if len(fitting) > 1 else fitting[0], why


def format_entries(title: str, entries: Sequence[Entry]) -> str:
    """Gives the table that is printed before the start: key, value, why, and the sources in full.

    Args:
        title: the corpus and the encoder.
        entries: at least one.
    """
    rows = [("key", "value", "why")]
    rows += [(entry.key, _shown(entry.value), entry.why) for entry in entries]
    width, value_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    sources = {entry.source: None for entry in entries if entry.source is not None}
    lines = textwrap.wrap(f"recipe auto: {title}", _WIDTH, subsequent_indent="  ")
    column = min(value_width, _VALUE_WIDTH)
    for key, value, why in rows:
        gap = "\n" + " " * (width + column + 6) if len(value) > column else "  "
        lines.append(f"  {key:<{width}}  {value:<{column}}{gap}{why}")
    lines.append("")
    for source in sources:
        text = f"{source.label}: {source.text}"
        lines += textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")
    lines.append("  A key that is given in the config is taken instead.")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    """Gives a value as it is written in the config."""
    return json.dumps(value, ensure_ascii=False)
