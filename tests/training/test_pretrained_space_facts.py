"""What a run finds out about the space it moved."""

import json
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from conftest import TINY_ECAPA

from speaker_encoder import SpeakerEncoder, UserError
from speaker_encoder.corpora import Utterance, scan
from speaker_encoder.export import load_space
from speaker_encoder.training.pretrained_space import (
    SpaceFacts,
    ValidationRows,
    measure_space,
    space_text,
    spread_sample,
)
from speaker_encoder.training.stored import read_back
from speaker_encoder.verification import evaluate, make_trials

TINY = {"hidden_size": 32, "num_layers": 2, "embedding_size": 24}


def corpus(counts: dict[str, int]) -> list[Utterance]:
    return [
        Utterance(f"{speaker}/{number:03d}", speaker, None, "x.wav", 16000, 16000)
        for speaker, count in counts.items()
        for number in range(count)
    ]


def test_a_sample_is_spread_over_speakers_and_their_utterances():
    counts = {"a": 100, "b": 3, "c": 50, "d": 1}
    chosen = spread_sample(corpus(counts), 40)
    assert Counter(u.speaker_id for u in chosen) == {"a": 18, "b": 3, "c": 18, "d": 1}
    of_a = [int(u.utterance_id[-3:]) for u in chosen if u.speaker_id == "a"]
    assert np.all(np.diff(of_a) >= 5) and of_a[0] <= 5 and of_a[-1] >= 94
    assert chosen == spread_sample(corpus(counts)[::-1], 40)
    assert len(spread_sample(corpus(counts), 1000)) == 154
    many = spread_sample(corpus({f"s{number:03d}": 2 for number in range(100)}), 10)
    assert [u.speaker_id for u in many] == [f"s{number:03d}" for number in range(5, 100, 10)]
    faster = [replace(u, speed=1.1, speaker_id=f"{u.speaker_id}-fast") for u in corpus(counts)]
    assert spread_sample([*corpus(counts), *faster], 40) == chosen


@pytest.fixture
def encoders(tmp_path):
    """A tiny d-vector and one near it, as after fine-tuning; each a model folder."""
    torch.manual_seed(1)
    old = SpeakerEncoder.from_name("dvector", pretrained=False, encoder_config=TINY)
    old.config.untrained_head = False
    old.save_pretrained(tmp_path / "old")
    with torch.no_grad():
        for weight in old.parameters():
            weight.add_(0.15 * torch.randn_like(weight))
    old.save_pretrained(tmp_path / "new")
    return tmp_path / "old", tmp_path / "new"


def rows_of(folders, utterances):
    paths = [utterance.path for utterance in utterances]
    return [SpeakerEncoder.from_pretrained(folder).encode(paths).numpy() for folder in folders]


def test_the_facts_are_those_of_the_embeddings(encoders, data_dir, caplog, tmp_path):
    training = list(scan(data_dir / "vctk").utterances)
    (tmp_path / "empty.flac").write_bytes(b"")
    training.append(replace(training[0], utterance_id="z", path=str(tmp_path / "empty.flac")))
    unseen = scan(data_dir / "libritts").utterances
    old, new = rows_of(encoders, unseen)
    trials, speakers = make_trials(unseen), [u.speaker_id for u in unseen]
    validation = ValidationRows(old, new, trials, speakers)
    facts = measure_space(*encoders, training, validation=validation, num_bootstrap=50)
    assert (facts.num_utterances, facts.num_speakers) == (40, 4)
    assert "1 of 41 utterances cannot be used" in caplog.text

    space = load_space(encoders[1], SpeakerEncoder.from_pretrained(encoders[1]))
    old_training, new_training = rows_of(encoders, training[:-1])
    mapped = space.map(new)
    for found, pair in {
        facts.training_cosine: (space.map(new_training), old_training),
        facts.cosine_to_pretrained: (new, old),
        facts.mapped_cosine: (mapped, old),
    }.items():
        assert found == pytest.approx(
            np.mean([a @ b for a, b in zip(*pair, strict=True)]), abs=1e-5
        )
    assert facts.old_old.eer == evaluate(old, trials, speakers, num_bootstrap=9).eer
    assert facts.new_new.eer == evaluate(new, trials, speakers, num_bootstrap=9).eer
    assert evaluate(mapped, trials, speakers, num_bootstrap=9).eer == facts.new_new.eer
    assert facts.old_mapped.eer != facts.old_new.eer
    assert read_back(SpaceFacts, json.loads(json.dumps(asdict(facts))), "facts") == facts
    shown = space_text(facts)
    assert shown.startswith(f"A rotation to its space makes it {facts.mapped_cosine:.3f}. EER of")
    assert f"of old with mapped ones {facts.old_mapped.eer:.2%}." in shown


def test_an_untouched_result_needs_no_map_and_no_audio(encoders, tmp_path):
    missing = corpus({"a": 3})  # nothing is read
    facts = measure_space(encoders[0], encoders[0], missing)
    assert facts == SpaceFacts(0, 0, 1.0)
    assert space_text(facts) is None
    space = load_space(encoders[0], SpeakerEncoder.from_pretrained(encoders[0]))
    assert np.array_equal(space.rotation, np.eye(24))


def test_what_cannot_be_mapped_is_refused(encoders, tmp_path):
    with pytest.raises(UserError, match="Not one utterance of the training corpus can be read"):
        measure_space(*encoders, corpus({"a": 3}))
    with pytest.raises(UserError, match=r"gives 256 dimensions .* 24 at 16000 Hz"):
        measure_space("dvector", encoders[1], corpus({"a": 3}))


@pytest.mark.slow
def test_a_run_keeps_the_map_and_the_export_uses_it(make_run, tmp_path, data_dir):
    """From a trained start to embeddings in its space."""
    from speaker_encoder.cli.main import main
    from speaker_encoder.training import TrainConfig, train
    from speaker_encoder.verification.sources import read_embeddings

    torch.manual_seed(1)
    start = SpeakerEncoder.from_name("ecapa", pretrained=False, encoder_config=TINY_ECAPA)
    start.config.untrained_head = False
    start.save_pretrained(tmp_path / "start")
    run = make_run(
        model_name=str(tmp_path / "start"), encoder_config=None, pretrained=True,
        interpolate=0.5, allow_worse=True, max_steps=2, val_every=2,
    )  # fmt: skip
    outcome = train(TrainConfig.from_json(run.config_path))
    facts = outcome.results.pretrained_space
    assert facts.num_speakers == 24 and facts.mapped_cosine is not None
    assert facts.cosine_to_pretrained == outcome.results.cosine_to_pretrained
    assert f"embeddings: {facts.cosine_to_pretrained:.3f}. A rotation" in outcome.message

    embeddings = {}
    for space in ("own", "pretrained"):
        given = ["--model_name", "ecapa", "--dataset_dir", str(data_dir / "libritts")]
        given += ["--checkpoint", str(run.path), "--output_dir", str(tmp_path / space)]
        assert main(["embed", *given, "--space", space, "--model_device", "cpu"]) == 0
        embeddings[space] = read_embeddings(tmp_path / space).embeddings
    encoder = SpeakerEncoder.from_pretrained(run.path / "model")
    space = load_space(run.path, encoder)
    np.testing.assert_allclose(embeddings["pretrained"], space.map(embeddings["own"]), atol=1e-6)
