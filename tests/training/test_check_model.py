"""What can be known of a model before anything is trained is found before it."""

import pytest
from conftest import TINY_WAVLM

from speaker_encoder import SpeakerEncoder
from speaker_encoder.errors import UserError
from speaker_encoder.training import TrainConfig
from speaker_encoder.training.build import check_model
from speaker_encoder.training.model_card import _losses

LEAST = {"train_data_root": "demo", "val_data_root": "demo"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"freeze": ["no.such"]}, "no.such"),
        ({"lora": {"target": ["query"]}}, "query"),
        ({"window_size_s": 0.01}, "needs crops of at least"),
        ({"spec_augment_time_masks": 1}, "mel"),
    ],
)
def test_a_local_encoder_is_built(tmp_path, keys: dict, message: str) -> None:
    encoder = SpeakerEncoder.from_name("wavlm-base-sv", pretrained=False, encoder_config=TINY_WAVLM)
    encoder.config.untrained_head = False
    encoder.save_pretrained(tmp_path)
    whole = {**LEAST, "model_name": str(tmp_path)}
    check_model(TrainConfig.from_dict(whole))
    with pytest.raises(UserError, match=message):
        check_model(TrainConfig.from_dict({**whole, **keys}))


def test_a_stage_with_a_named_encoder_is_built_without_its_weights() -> None:
    config = TrainConfig.from_dict({**LEAST, "model_name": "dvector", "freeze": ["no.such"]})
    check_model(config)  # by itself it fails soon enough
    with pytest.raises(UserError, match=r"no\.such"):
        check_model(config, is_stage=True)


def test_the_card_names_the_losses_of_all_stages() -> None:
    stages = [{"loss": "aam_softmax"}, {"loss": "aam_softmax"}, {"max_steps": 2}]
    config = TrainConfig.from_dict({**LEAST, "model_name": "ecapa", "stages": stages})
    assert _losses(config) == "aam_softmax, then ge2e"
