"""How well batches from shards are mixed, against those from memory: no audio is read.

An index as of VoxCeleb1's (1,211 speakers, 45 to 250 utterances each) is laid out in shards as
`prepare --shards` does, with all utterances shuffled, and sorted by speaker; then a few epochs of
P x K batches are planned from buffers of several sizes.

    python benchmarks/mixing.py
    python benchmarks/mixing.py --speakers_per_batch 16 --utterances_per_speaker 4
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speaker_encoder.audio.member import Member
from speaker_encoder.corpora import Utterance
from speaker_encoder.corpora.shards.write import NEIGHBOURS
from speaker_encoder.training.sampler import SpeakerBatchSampler, group_by_speaker
from speaker_encoder.training.stream_order import StreamedBatchSampler, runs_of

UTTERANCES_PER_SHARD = 8000  # of 125 kB: 1 GB
BATCHES_AT_A_TIME = 10


@dataclass(frozen=True)
class Mixing:
    """How well some epochs are mixed.

    Attributes:
        gap: batches from one coming of a speaker to the next, on average.
        shortest_gap: the 5th percentile of it.
        seen: share of the utterances that come up in an epoch.
        repeated: share of places in batches whose utterance is in the batch already.
        met: share of the pairs of speakers that were in a batch together.
        runs: places in the shards, of 128 neighbours, that ten batches read from.
    """

    gap: float
    shortest_gap: float
    seen: float
    repeated: float
    met: float
    runs: float


def make_index(order: str, num_speakers: int, seed: int = 0) -> list[Utterance]:
    """Gives the utterances of a corpus whose shards are in an order.

    Args:
        order: "pieces", "shuffled" or "sorted".
        num_speakers: of the corpus.
        seed: of the sizes of speakers and of the order.
    """
    generator = np.random.default_rng(seed)
    counts = np.clip(generator.gamma(4.0, 30.0, num_speakers), 45, 250).astype(int)
    whose = np.repeat(np.arange(num_speakers), counts)
    if order == "shuffled":
        whose = generator.permutation(whose)
    elif order == "pieces":
        starts = [
            (speaker, start)
            for speaker, count in enumerate(counts)
            for start in range(0, count, NEIGHBOURS)
        ]
        pieces = [[speaker] * min(NEIGHBOURS, counts[speaker] - start) for speaker, start in starts]
        whose = np.concatenate([pieces[i] for i in generator.permutation(len(pieces))])
    utterances = []
    for place, speaker in enumerate(whose):
        shard, row = divmod(place, UTTERANCES_PER_SHARD)
        member = Member(f"/shards/{shard:04d}.tar", row * 1024, 512, f"{place}.flac")
        name = f"{place:07d}"
        row_of = Utterance(name, f"id{speaker:05d}", None, member.path, 80000, 16000)
        utterances.append(row_of)
    return utterances


def measure(
    utterances: list[Utterance], sampler: SpeakerBatchSampler, size: tuple[int, int], epochs: int
) -> Mixing:
    """Measures some epochs of a sampler."""
    names = {name: number for number, name in enumerate(group_by_speaker(utterances))}
    whose = np.array([names[utterance.speaker_id] for utterance in utterances])
    run_of = np.empty(len(utterances), dtype=int)
    for number, run in enumerate(runs_of(utterances, range(len(utterances)))):
        run_of[run] = number
    last = np.full(len(names), -1)
    met = np.zeros((len(names), len(names)), dtype=bool)
    gaps: list[np.ndarray] = []
    seen, repeated, runs = [], [], []
    batch_number = 0
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        keys = np.array([key.utterance for key in sampler]).reshape(-1, size[0] * size[1])
        seen.append(len(np.unique(keys)) / len(utterances))
        for batch in keys:
            speakers = whose[batch[:: size[1]]]
            before = last[speakers]
            gaps.append(batch_number - before[before >= 0])
            last[speakers] = batch_number
            met[np.ix_(speakers, speakers)] = True
            repeated.append(1 - len(np.unique(batch)) / len(batch))
            batch_number += 1
        for start in range(0, len(keys) - BATCHES_AT_A_TIME + 1, BATCHES_AT_A_TIME):
            runs.append(len(np.unique(run_of[keys[start : start + BATCHES_AT_A_TIME]])))
    all_gaps = np.concatenate(gaps)
    pairs = len(names) * (len(names) - 1)
    return Mixing(
        float(all_gaps.mean()),
        float(np.percentile(all_gaps, 5)),
        float(np.mean(seen)),
        float(np.mean(repeated)),
        float((met.sum() - np.diag(met).sum()) / pairs),
        float(np.mean(runs)),
    )


def line(name: str, found: Mixing) -> str:
    """Gives a row of the Markdown table."""
    return (
        f"| {name} | {found.gap:.1f} | {found.shortest_gap:.0f} | {100 * found.seen:.1f} % | "
        f"{100 * found.repeated:.1f} % | {100 * found.met:.1f} % | {found.runs:.0f} |"
    )


def rows(
    num_speakers: int, size: tuple[int, int], buffers: Iterable[int], epochs: int
) -> list[tuple]:
    """Prints the table, and gives (what, ours, from memory, ratio, unit)."""
    print(
        f"{num_speakers} speakers, batches of {size[0]} x {size[1]}, {epochs} epochs\n\n"
        "| shards | buffer | gap | 5 % of gaps | seen | repeated | pairs met | runs |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    measured: list[tuple] = []
    for order in ("pieces", "shuffled", "sorted"):
        utterances = make_index(order, num_speakers)
        arguments = (utterances, group_by_speaker(utterances), *size, 0)
        memory = measure(utterances, SpeakerBatchSampler(*arguments), size, epochs)
        print(line(f"{order} | all {len(utterances)}, from memory", memory), flush=True)
        for buffer in buffers:
            sampler = StreamedBatchSampler(*arguments, shuffle_buffer=buffer)
            found = measure(utterances, sampler, size, epochs)
            print(line(f"{order} | {buffer}", found), flush=True)
            for what, ours, theirs, unit in (
                ("batches between comings of a speaker", found.gap, memory.gap, ""),
                ("pairs of speakers that met", 100 * found.met, 100 * memory.met, "%"),
            ):
                name = f"{what}, shards {order}, buffer {buffer}, against from memory"
                measured.append((name, ours, theirs, ours / theirs, unit))
    return measured


def main() -> None:
    """Measures what the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num_speakers", type=int, default=1211)
    parser.add_argument("--speakers_per_batch", type=int, default=64)
    parser.add_argument("--utterances_per_speaker", type=int, default=10)
    parser.add_argument("--buffers", type=int, nargs="+", default=[2000, 5000, 20000, 50000])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the rows for `python -m benchmarks`")
    arguments = parser.parse_args()
    size = (arguments.speakers_per_batch, arguments.utterances_per_speaker)
    measured = rows(arguments.num_speakers, size, arguments.buffers, arguments.epochs)
    if arguments.json:
        arguments.json.write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
