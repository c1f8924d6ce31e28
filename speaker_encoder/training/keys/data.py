"""Keys of the config: the corpora, and how examples are made of them."""

from __future__ import annotations

from dataclasses import dataclass

from speaker_encoder.training.config_compound import FilePath, NumberOrRange
from speaker_encoder.training.config_kinds import Boolean, Number, choice, integer
from speaker_encoder.training.config_lists import NumberList
from speaker_encoder.training.config_tables import known_layouts
from speaker_encoder.training.keys.field import REQUIRED, key


@dataclass(frozen=True, kw_only=True)
class DataKeys:
    """The corpora, and how examples are made of them."""

    train_data_root: str = key(
        FilePath("any", words=("demo",), may_be_shards=True),
        REQUIRED,
        'Folder of the training corpus, or a list file, or shards (docs/streaming.md); "demo": a '
        "corpus of synthetic voices.",
    )
    val_data_root: str | None = key(
        FilePath("any", words=("demo",), nullable=True, may_be_shards=True),
        None,
        "The same for validation, with other speakers; null: no validation.",
    )
    layout: str = key(
        known_layouts(), "auto", "How the corpora lie on disk; auto: found out by looking."
    )
    multi_rec_session: bool = key(
        Boolean(), False, "The corpora are speaker/session/file instead of speaker/file."
    )
    train_list: str | None = key(
        FilePath("file", nullable=True),
        None,
        "File with lines `speaker path`, paths relative to train_data_root; null: all of it.",
    )
    val_list: str | None = key(
        FilePath("file", nullable=True),
        None,
        "File with lines `speaker path`, paths relative to val_data_root; null: all of it.",
    )
    val_trials: str | None = key(
        FilePath("file", nullable=True),
        None,
        "File with lines `label path1 path2`: the trials of validation; null: all pairs.",
    )
    reference_data_root: str | None = key(
        FilePath("any", nullable=True, may_be_shards=True),
        None,
        "Folder or list file of speech on which the encoder must not get worse, other speakers "
        "than those of training; its EER is measured at every validation. null: none.",
    )
    reference_list: str | None = key(
        FilePath("file", nullable=True),
        None,
        "File with lines `speaker path`, paths relative to reference_data_root; null: all of it.",
    )
    reference_trials: str | None = key(
        FilePath("file", nullable=True),
        None,
        "File with lines `label path1 path2`: trials of it; null: all pairs.",
    )
    allow_speaker_overlap: bool = key(
        Boolean(), False, "Accept speakers that are in both training and validation data."
    )
    cache_dir: str | None = key(
        FilePath(nullable=True), None, "Where scans of corpora are cached; null: the user's cache."
    )
    model_sample_rate: int = key(
        choice(16000), 16000, "Sampling rate of the model in Hz; audio is resampled to it."
    )
    window_size_s: float | tuple[float, float] = key(
        NumberOrRange(Number(above=0)),
        2.0,
        "Seconds of a training crop, or [least, most], drawn for each batch.",
    )
    short_utterances: str = key(
        choice("repeat", "zero_pad"),
        "repeat",
        "Utterances shorter than the crop are repeated, or centred between zeros.",
    )
    trim_silence: str = key(
        choice("off", "energy", "vad"),
        "off",
        "Take crops, and validate, from what trimming leaves, as the exporter's --trim_silence; "
        "every file is then decoded whole once.",
    )
    few_utterances: str = key(
        choice("repeat", "drop", "error"),
        "repeat",
        "Speakers with fewer than utterances_per_speaker utterances: repeat their utterances with "
        "other crops, leave the speakers out, or stop.",
    )
    min_utterance_seconds: float = key(
        Number(least=0), 0.5, "Utterances shorter than this are left out; 0 keeps all."
    )
    speed_perturbation: tuple[float, ...] = key(
        NumberList(Number(least=0.5, most=2)),
        [],
        "Speeds at which every training utterance is heard again as one of a new speaker; "
        "[0.9, 1.1]: three times as many speakers.",
    )
    max_speakers: int | None = key(
        integer(2, nullable=True),
        None,
        "Train on a random choice of so many speakers (before speed_perturbation); null: on all.",
    )
    max_utterances_per_speaker: int | None = key(
        integer(2, nullable=True),
        None,
        "Utterances of a speaker in one epoch, at most, chosen anew for each epoch; rounded down "
        "to a multiple of utterances_per_speaker. null: no limit.",
    )
    shuffle_buffer: int = key(
        integer(1),
        20000,
        "Training from shards: batches are drawn from so many utterances at a time, while the "
        "shards are read nearly in order; at least a batch. A corpus with no more utterances is "
        "mixed as one of files.",
    )
    views: str = key(
        choice("speaker", "utterance", "halves"),
        "speaker",
        "What a training batch has P of. speaker: speakers with K utterances. For self-supervised "
        "losses, labels unused, single utterances with K views: random crops (utterance), or the "
        "halves of one crop of twice window_size_s, with K = 4 also each of them pitch-shifted.",
    )
    speakers_per_batch: int = key(
        integer(2), 6, "P: speakers in a training batch; divided over the devices."
    )
    utterances_per_speaker: int = key(
        integer(1),
        8,
        "K: utterances of each speaker in a training batch; at least 2, but with a loss of "
        "classes alone.",
    )
    val_speakers_per_batch: int = key(integer(2), 4, "P of the validation batches.")
    val_utterances_per_speaker: int = key(integer(2), 8, "K of the validation batches.")
    num_workers: int = key(integer(0, 256), 2, "Processes that read audio; 0: the main one does.")
