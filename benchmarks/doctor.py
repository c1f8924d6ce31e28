"""How many planted errors of a corpus the data doctor finds, and how many it finds wrongly.

Copies real speech, plants wrong labels, duplicates (five exact ones; five at another level, as mp3,
cut, padded, at 8 kHz) and split speakers with a fixed seed, examines the copy, and prints precision
and recall. Errors that the corpus had before count as wrong findings. Then wrong labels and split
speakers are planted many times more, in the labels alone, for figures that mean more than one draw.

    pip install resemblyzer   # ships the weights of `dvector`
    python benchmarks/doctor.py --data_dir ../shared/data --part held_out

The speakers of --data_dir are halved: `development` is the half that the doctor was made on.
"""

import argparse
import csv
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from speaker_encoder import SpeakerEncoder
from speaker_encoder.audio import read_audio
from speaker_encoder.audio.resample import resample
from speaker_encoder.corpora import Utterance, scan
from speaker_encoder.doctor import Diagnosis, examine
from speaker_encoder.doctor.audio_facts import measure_all
from speaker_encoder.doctor.recordings import Recordings
from speaker_encoder.doctor.voices import VoiceExamination, audible, embed

PARTS = ("development", "held_out", "all")
HALVES_SEED = 99
RATE = 16000


@dataclass
class Planted:
    """What was planted.

    Attributes:
        wrong: utterances, as `speaker/file` without the extension.
        copies: pairs of such utterances.
        splits: pairs of speakers.
    """

    wrong: set[str] = field(default_factory=set)
    copies: set[frozenset[str]] = field(default_factory=set)
    splits: set[frozenset[str]] = field(default_factory=set)


def read_table(data_dir: Path, part: str) -> list[dict[str, str]]:
    """Gives the rows of one half of the speakers, or of all."""
    with open(data_dir / "lists" / "utterances.tsv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    names = np.unique([row["speaker"] for row in rows])
    order = np.random.default_rng(HALVES_SEED).permutation(len(names))
    half = len(names) // 2
    chosen = {"development": order[:half], "held_out": order[half:], "all": order}[part]
    kept = set(names[chosen])
    return [row for row in rows if row["speaker"] in kept]


def plant_labels(
    rows: list[dict[str, str]], seed: int, num_wrong: int, num_splits: int, is_hard: bool = False
) -> tuple[list[str], Planted, list[int]]:
    """Gives a speaker for each row, what was planted, and the rows with wrong ones.

    A hard wrong label is that of a speaker of the same corpus and sex.
    """
    generator = np.random.default_rng(seed)
    labels = [row["speaker"] for row in rows]
    groups: dict[str, list[int]] = {}
    for number, label in enumerate(labels):
        groups.setdefault(label, []).append(number)
    planted = Planted()
    splittable = sorted(name for name, numbers in groups.items() if len(numbers) >= 6)
    split = [str(name) for name in generator.choice(splittable, num_splits, replace=False)]
    for name in split:
        for number in generator.permutation(groups[name])[: len(groups[name]) // 2]:
            labels[number] = f"{name}_again"
        planted.splits.add(frozenset((name, f"{name}_again")))
    others = [number for number, row in enumerate(rows) if row["speaker"] not in split]
    moved = generator.choice(others, num_wrong, replace=False).tolist()
    kinds = {row["speaker"]: (row["corpus"], row["sex"]) for row in rows}
    for number in moved:
        own = rows[number]["speaker"]
        choices = sorted(name for name in groups if name != own and name not in split)
        alike = [name for name in choices if kinds[name] == kinds[own]]
        labels[number] = str(generator.choice(alike if is_hard and alike else choices))
    return labels, planted, moved


def make_copy(
    data_dir: Path,
    rows: list[dict[str, str]],
    folder: Path,
    seed: int,
    counts: tuple[int, int, int],
) -> Planted:
    """Writes the corpus with wrong labels, duplicates and split speakers: counts in this order."""
    num_wrong, num_copies, num_splits = counts
    labels, planted, moved = plant_labels(rows, seed, num_wrong, num_splits)
    names = [f"{label}/{number:05d}" for number, label in enumerate(labels)]
    for name, row in zip(names, rows, strict=True):
        target = folder / f"{name}{Path(row['path']).suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data_dir / row["path"], target)
    planted.wrong = {names[number] for number in moved}
    generator = np.random.default_rng(seed + 1)
    others = sorted(set(range(len(rows))) - set(moved))
    for turn, number in enumerate(generator.choice(others, num_copies, replace=False).tolist()):
        # every fourth copy goes to another speaker, and is a wrong label as well
        label = labels[others[(others.index(number) + 97) % len(others)]] if turn % 4 == 3 else None
        name = f"{label or labels[number]}/copy{turn}"
        write_copy(data_dir / rows[number]["path"], folder / name, turn)
        planted.copies.add(frozenset((names[number], name)))
        if label is not None and label != labels[number]:
            planted.wrong.add(name)
    return planted


def write_copy(path: Path, target: Path, turn: int) -> None:
    """Writes an exact copy for even turns, and ever another near one for odd turns."""
    if turn % 2 == 0:
        shutil.copyfile(path, target.with_suffix(path.suffix))
        return
    waveform = read_audio(path, RATE)
    silence = np.zeros(RATE // 3, dtype=np.float32)
    kind = turn // 2 % 5
    if kind == 0:
        soundfile.write(target.with_suffix(".wav"), 0.3 * waveform, RATE)
    elif kind == 1:
        soundfile.write(target.with_suffix(".mp3"), waveform, RATE, bitrate_mode="CONSTANT")
    elif kind == 2:
        soundfile.write(target.with_suffix(".wav"), waveform[RATE // 5 : -RATE // 4], RATE)
    elif kind == 3:
        padded = np.concatenate([silence, waveform, silence])
        soundfile.write(target.with_suffix(".flac"), padded, RATE)
    else:
        soundfile.write(target.with_suffix(".wav"), resample(waveform, RATE, 8000), 8000)


def found_by(diagnosis: Diagnosis) -> Planted:
    """Gives what was found, named as what was planted."""

    def name(path: str) -> str:
        return str(Path(path).relative_to(diagnosis.data.root).with_suffix(""))

    found = Planted(wrong={name(f.paths[0]) for f in diagnosis.of_kind("wrong_speaker")})
    for kind in ("duplicate", "near_duplicate"):
        for finding in diagnosis.of_kind(kind):
            first, *others = (name(path) for path in finding.paths)
            found.copies |= {frozenset((first, other)) for other in others}
    found.splits = {frozenset(finding.speakers) for finding in diagnosis.of_kind("same_person")}
    return found


HEAD = f"{'':24s}{'planted':>8s}{'found':>7s}{'right':>7s}{'precision':>11s}{'recall':>8s}"


def show(title: str, planted: int, found: int, right: int, before: int) -> str:
    """Gives one line of the table; the second precision is without what was there before."""
    precision = f"{right / found:.3f}" if found else "-"
    new = f"{right / (found - before):.3f}" if found > before else "-"
    return (
        f"{title:24s}{planted:8d}{found:7d}{right:7d}{precision:>11s}{right / planted:8.3f}"
        f"{before:9d}{new:>11s}"
    )


class Labels:
    """The corpus in memory, embedded once, under any labels.

    Args:
        rows: of the corpus.
        data_dir: where it is.
        encoder: of the voices.
    """

    def __init__(self, rows: list[dict[str, str]], data_dir: Path, encoder: SpeakerEncoder) -> None:
        self.rows, self.data_dir = rows, data_dir
        utterances = _utterances(rows, [row["speaker"] for row in rows], data_dir)
        self.facts = measure_all(utterances)
        recordings = Recordings(utterances, len(utterances), self.facts)
        self.indices = audible(recordings, encoder)
        self.embeddings = embed(recordings, self.indices, encoder)
        self.wrong_before, self.splits_before = self.examine([row["speaker"] for row in rows])

    def examine(self, labels: list[str]) -> tuple[set[int], set[frozenset[str]]]:
        """Gives the rows that are likely wrong, and the speakers that are likely one person."""
        utterances = _utterances(self.rows, labels, self.data_dir)
        recordings = Recordings(utterances, len(utterances), self.facts)
        voices = VoiceExamination(recordings, self.indices, self.embeddings, set()).examine()
        wrong = {number for number, doubt in voices.wrong.items() if doubt > 0.5}
        pairs = {frozenset(f.speakers) for f in voices.findings if f.kind == "same_person"}
        return wrong, pairs

    def repeat(
        self, num_repeats: int, num_wrong: int, num_splits: int, seed: int
    ) -> dict[str, tuple[int, int, int, int]]:
        """Plants labels again and again, and gives the sums: planted, found, right, before."""
        sums = {title: np.zeros(4, dtype=np.int64) for title in
                ("wrong labels", "  of same sex, corpus", "split speakers")}  # fmt: skip
        for turn in range(num_repeats):
            for title in list(sums)[:2]:
                labels, planted, moved = plant_labels(
                    self.rows, seed + 100 + turn, num_wrong, num_splits, title.startswith(" ")
                )
                wrong, pairs = self.examine(labels)
                right, before = wrong & set(moved), wrong & self.wrong_before - set(moved)
                sums[title] += (len(moved), len(wrong), len(right), len(before))
                right_pairs = pairs & planted.splits
                sums["split speakers"] += (
                    len(planted.splits), len(pairs), len(right_pairs),
                    len(pairs & self.splits_before),
                )  # fmt: skip
        return {title: tuple(counted.tolist()) for title, counted in sums.items()}


def _utterances(rows: list[dict[str, str]], labels: list[str], data_dir: Path) -> list[Utterance]:
    lengths = [round(float(row["seconds"]) * RATE) for row in rows]
    return [
        Utterance(str(number), label, None, str(data_dir / row["path"]), length, RATE)
        for number, (row, label, length) in enumerate(zip(rows, labels, lengths, strict=True))
    ]


def rows(counted: dict[str, tuple[int, int, int, int]]) -> list[tuple]:
    """Gives (what, ours, counterpart, ratio, unit) of planted, found, right and before."""
    measured: list[tuple] = []
    for title, (planted, found, right, _) in counted.items():
        what = f"doctor, {title.strip()}, {planted} planted"
        measured.append((f"{what}, precision", right / max(found, 1), None, None, ""))
        measured.append((f"{what}, recall", right / planted, None, None, ""))
    return measured


def main() -> None:
    """Plants, examines and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="dvector")
    parser.add_argument("--part", choices=PARTS, default="all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--num_wrong", type=int, default=20)
    parser.add_argument("--num_copies", type=int, default=10)
    parser.add_argument("--num_splits", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the rows for `python -m benchmarks`")
    arguments = parser.parse_args()
    counts = (arguments.num_wrong, arguments.num_copies, arguments.num_splits)
    corpus = read_table(arguments.data_dir, arguments.part)
    encoder = SpeakerEncoder.from_pretrained(arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        planted = make_copy(arguments.data_dir, corpus, Path(folder), arguments.seed, counts)
        data = scan(folder, "folders", use_cache=False)
        found = found_by(examine(data, encoder, model_name=arguments.model))
    labels = Labels(corpus, arguments.data_dir, encoder)
    num_speakers = len({row["speaker"] for row in corpus})
    print(
        f"{arguments.part}: {len(corpus)} utterances of {num_speakers} speakers; {arguments.model}"
    )
    print("found before anything was planted:")
    for number in sorted(labels.wrong_before):
        print(f"  wrong label {corpus[number]['path']}")
    for pair in sorted(sorted(pair) for pair in labels.splits_before):
        print(f"  one person {' = '.join(pair)}")
    print(f"{HEAD}{'before':>9s}{'without':>11s}")
    print(f"one copy on disk, seed {arguments.seed}")
    counted = {}
    for title, kind in (("wrong labels", "wrong"), ("duplicates", "copies"),
                        ("split speakers", "splits")):  # fmt: skip
        wanted, got = getattr(planted, kind), getattr(found, kind)
        before = {"wrong": {f"{corpus[n]['speaker']}/{n:05d}" for n in labels.wrong_before},
                  "copies": set(), "splits": labels.splits_before}[kind]  # fmt: skip
        num_before = len(got & before - wanted)
        one_copy = (len(wanted), len(got), len(wanted & got), num_before)
        counted[f"{title}, on disk"] = one_copy
        print(show(title, *one_copy))
    if arguments.repeats:
        print(f"labels planted {arguments.repeats} times, sums")
        repeated = labels.repeat(arguments.repeats, counts[0], counts[2], arguments.seed)
        counted |= repeated
        for title, sums in repeated.items():
            print(show(title, *sums))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows(counted)))


if __name__ == "__main__":
    main()
