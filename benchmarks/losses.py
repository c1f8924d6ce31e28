"""Every loss on the same encoder, data, steps and seeds: EER on speakers that were not trained on.

Trains the last layer of the pretrained `dvector` encoder (extra `[dvector]`), the linear layer from
the LSTM's state to the embedding, once from its own weights and once from random ones. The LSTM
stays as it is, so that its states serve all losses and the whole table takes minutes on a CPU.

All losses of a seed see the same crops in the same order; `nt_xent` alone sees two crops of each of
P K / 2 utterances. Every loss is trained at every learning rate and all figures are written:
nothing is chosen. The weights of a loss learn at the encoder's rate, as in the trainer. Optimizer
and limit on the gradients are the config's defaults. Writes Markdown tables.

    python benchmarks/losses.py --data_dir ../data --output losses.md
"""

import argparse
import copy
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from tqdm import tqdm

from speaker_encoder import SpeakerEncoder
from speaker_encoder.corpora import Utterance, scan
from speaker_encoder.losses import ChosenLoss, build_chosen_loss
from speaker_encoder.training.dataset import CollateCrops, CropDataset
from speaker_encoder.training.sampler import ExampleKey, SpeakerBatchSampler, group_by_speaker
from speaker_encoder.verification import Trials, VerificationResult, evaluate, read_trials

CROP_SECONDS = 1.6  # one window of the encoder
MAX_GRAD_NORM = 3.0
UNTRAINED = "none: before training"
STARTS = {"pretrained": "from the pretrained layer", "random": "from a random layer"}
CHOICES: dict[str, ChosenLoss] = {
    "ge2e": {"name": "ge2e"},
    "ge2e, contrast": {"name": "ge2e", "variant": "contrast"},
    "ge2e, inclusive centroid": {"name": "ge2e", "own_centroid": "inclusive"},
    "angular_prototypical": {"name": "angular_prototypical"},
    "prototypical": {"name": "prototypical"},
    "triplet, batch_hard": {"name": "triplet"},
    "triplet, semi_hard": {"name": "triplet", "mining": "semi_hard"},
    "triplet, hard_rank": {"name": "triplet", "mining": "hard_rank"},
    "sup_con": {"name": "sup_con"},
    "nt_xent": {"name": "nt_xent"},
    "softmax": {"name": "softmax"},
    "am_softmax": {"name": "am_softmax"},
    "aam_softmax": {"name": "aam_softmax"},
    "aam_softmax, 3 sub-centres, top 5": {
        "name": "aam_softmax",
        "sub_centres": 3,
        "inter_top_k": 5,
    },
    "softmax_prototypical": {"name": "softmax_prototypical"},
}

Key = tuple[str, str, float]
"""Start, loss, learning rate."""


class FrozenEncoder:
    """What the encoder does before its last layer."""

    def __init__(self) -> None:
        self.encoder = SpeakerEncoder.from_pretrained("dvector")
        self.linear = self.encoder.backbone.linear
        self._states: list[Tensor] = []
        self.linear.register_forward_pre_hook(lambda _, inputs: self._states.append(inputs[0]))

    def states(self, input_values: Tensor) -> Tensor:
        """(B, T) waveforms -> (windows, H), the inputs of the last layer."""
        self._states.clear()
        with torch.no_grad():
            self.encoder(input_values)
        return torch.cat(self._states)


def embed(linear: nn.Module, states: Tensor) -> Tensor:
    """(N, H) -> (N, D), rows L2-normalised, as the encoder does."""
    return normalize(linear(states).relu(), dim=-1)


class Learner:
    """A last layer with one loss at one learning rate."""

    def __init__(self, choice: ChosenLoss, linear: nn.Linear, num_speakers: int, rate: float):
        self.linear = linear
        self.loss = build_chosen_loss(choice, linear.out_features, num_speakers)
        self._parameters = [*linear.parameters(), *self.loss.parameters()]
        self._optimizer = torch.optim.Adam(self._parameters, lr=rate)

    def learn(self, states: Tensor, labels: Tensor, step: int) -> None:
        """Does one step."""
        for module in self.loss.modules():
            if hasattr(module, "set_step"):
                module.set_step(step)
        self._optimizer.zero_grad()
        self.loss(embed(self.linear, states), labels).backward()
        nn.utils.clip_grad_norm_(self._parameters, MAX_GRAD_NORM)
        self._optimizer.step()


@dataclass(frozen=True)
class Judge:
    """The trials, and the states of their utterances."""

    trials: Trials
    speakers: list[str]
    states: Tensor  # (windows of all utterances, H)
    utterances: Tensor  # (windows of all utterances,) which one each is of

    def __call__(self, linear: nn.Module, num_bootstrap: int) -> VerificationResult:
        """Gives the EER with a last layer."""
        return evaluate(
            self.embeddings(linear), self.trials, self.speakers, num_bootstrap=num_bootstrap
        )

    def embeddings(self, linear: nn.Module) -> Tensor:
        """(N, D) of the utterances: the mean over the windows."""
        with torch.no_grad():
            windows = embed(linear, self.states)
        total = windows.new_zeros(len(self.speakers), windows.shape[1])
        return normalize(total.index_add(0, self.utterances, windows), dim=-1)


def make_judge(frozen: FrozenEncoder, utterances: list[Utterance], data_dir: Path) -> Judge:
    """Gives the judge; checks that it embeds as the encoder does."""
    waveforms = [soundfile.read(u.path, dtype="float32")[0] for u in utterances]
    states = [frozen.states(torch.from_numpy(waveform)[None]) for waveform in waveforms]
    numbers = [torch.full((len(part),), number) for number, part in enumerate(states)]
    trial_list = data_dir / "lists" / "dev_eval_trials.txt"
    judge = Judge(
        read_trials(trial_list, utterances, data_dir),
        [utterance.speaker_id for utterance in utterances],
        torch.cat(states),
        torch.cat(numbers),
    )
    expected = frozen.encoder.encode(waveforms[:20], show_progress=False)
    torch.testing.assert_close(judge.embeddings(frozen.linear)[:20], expected, atol=1e-5, rtol=0)
    return judge


def split_corpus(data_dir: Path) -> tuple[list[Utterance], list[Utterance]]:
    """Gives the training and the validation utterances; no speaker is in both."""
    lines = (data_dir / "lists" / "utterances.tsv").read_text(encoding="utf-8").splitlines()
    split_of = {cells[0]: cells[5] for cells in (line.split("\t") for line in lines)}
    parts: dict[str, list[Utterance]] = {"train": [], "dev_eval": []}
    root = data_dir.absolute()
    for utterance in scan(root / "speechocean762" / "WAVE", "folders", use_cache=False).utterances:
        parts[split_of[Path(utterance.path).relative_to(root).as_posix()]].append(utterance)
    return parts["train"], parts["dev_eval"]


def batches(
    utterances: list[Utterance], size: tuple[int, int], seed: int, is_views: bool
) -> Iterator[dict[str, Any]]:
    """Gives P x K batches without end; with `is_views` K crops of each of P utterances."""
    speakers = group_by_speaker(utterances)
    sampler = SpeakerBatchSampler(utterances, speakers, *size, seed)
    window, rate = (CROP_SECONDS, CROP_SECONDS), utterances[0].sampling_rate
    crops = CropDataset(utterances, speakers, rate, window, sampler.batch_size, "repeat", seed)
    collate = CollateCrops()
    epoch = 0
    while True:
        sampler.set_epoch(epoch)
        keys = list(sampler)
        for first in range(0, len(keys), sampler.batch_size):
            batch = keys[first : first + sampler.batch_size]
            if is_views:
                batch = [
                    ExampleKey(batch[place - place % size[1]].utterance, key.position)
                    for place, key in enumerate(batch)
                ]
            yield collate([crops[key] for key in batch])
        epoch += 1


def make_learners(
    options: argparse.Namespace, frozen: FrozenEncoder, num_speakers: int, seed: int
) -> dict[Key, Learner]:
    """Gives all that is trained side by side."""
    learners: dict[Key, Learner] = {}
    for start in STARTS:
        for name, choice in CHOICES.items():
            for rate in options.rates:
                torch.manual_seed(seed)
                linear = copy.deepcopy(frozen.linear)
                linear._forward_pre_hooks.clear()
                if start == "random":
                    linear.reset_parameters()
                learners[start, name, rate] = Learner(choice, linear, num_speakers, rate)
    return learners


def train_all(
    options: argparse.Namespace,
    frozen: FrozenEncoder,
    utterances: list[Utterance],
    judge: Judge,
    seed: int,
) -> dict[Key, VerificationResult]:
    """Trains all losses of a seed side by side."""
    learners = make_learners(options, frozen, len(group_by_speaker(utterances)), seed)
    num_bootstrap = options.num_bootstrap if seed == options.seeds[0] else 20
    found = {
        (start, UNTRAINED, rate): judge(learners[start, "ge2e", rate].linear, num_bootstrap)
        for start in STARTS
        for rate in options.rates
    }
    size = (options.speakers_per_batch, options.utterances_per_speaker)
    supervised = batches(utterances, size, seed, is_views=False)
    views = batches(utterances, (size[0] * size[1] // 2, 2), seed, is_views=True)
    for step in tqdm(range(options.steps), desc=f"seed {seed}", mininterval=10):
        batch, pairs = next(supervised), next(views)
        states, pair_states = (frozen.states(b["input_values"]) for b in (batch, pairs))
        for (_, name, _), learner in learners.items():
            if name == "nt_xent":
                learner.learn(pair_states, pairs["labels"], step)
            else:
                learner.learn(states, batch["labels"], step)
    found |= {key: judge(learner.linear, num_bootstrap) for key, learner in learners.items()}
    return found


def table(
    options: argparse.Namespace,
    start: str,
    found: dict[int, dict[Key, VerificationResult]],
) -> str:
    """The results of one start as Markdown."""
    seeds = list(found)
    heads = [f"{rate:g}: mean (range) | {rate:g}: interval" for rate in options.rates]
    lines = [
        f"{STARTS[start].capitalize()}, EER in %, learning rate: mean and range over the seeds "
        f"{seeds}, 95 % interval of seed {seeds[0]}:",
        "",
        f"| loss | {' | '.join(heads)} |",
        "|---|" + "---|---|" * len(heads),
    ]
    for name in (UNTRAINED, *CHOICES):
        cells = []
        for rate in options.rates:
            results = [found[seed][start, name, rate] for seed in seeds]
            rates = [100 * result.eer for result in results]
            mean = f"{statistics.mean(rates):.2f} ({min(rates):.2f} to {max(rates):.2f})"
            cells += [mean, _interval(results[0])]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _interval(result: VerificationResult) -> str:
    low, high = result.eer_interval
    return f"[{100 * low:.2f}, {100 * high:.2f}]"


def main() -> None:
    """Writes the tables after each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of real speech")
    parser.add_argument("--output", type=Path, required=True, help="the tables")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 1e-3, 1e-2])
    parser.add_argument("--speakers_per_batch", type=int, default=16)
    parser.add_argument("--utterances_per_speaker", type=int, default=4)
    parser.add_argument("--num_bootstrap", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    training, unseen = split_corpus(options.data_dir)
    frozen = FrozenEncoder()
    judge = make_judge(frozen, unseen, options.data_dir)
    found: dict[int, dict[Key, VerificationResult]] = {}
    for seed in options.seeds:
        found[seed] = train_all(options, frozen, training, judge, seed)
        text = "\n".join(table(options, start, found) for start in STARTS)
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
