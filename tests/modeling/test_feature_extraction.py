import numpy as np
import pytest
import torch

from speaker_encoder import SpeakerEncoderFeatureExtractor, UserError


def test_pads_to_the_longest_behind_the_end():
    extractor = SpeakerEncoderFeatureExtractor()
    batch = extractor(
        [np.ones(3, dtype=np.float64), [0.5, 0.5]], sampling_rate=16000, return_tensors="pt"
    )
    assert batch["input_values"].dtype == torch.float32
    assert batch["input_values"].tolist() == [[1, 1, 1], [0.5, 0.5, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


@pytest.mark.parametrize("single", [np.ones(5, dtype=np.float32), [1.0] * 5])
def test_one_waveform_is_a_batch_of_one(single):
    batch = SpeakerEncoderFeatureExtractor()(single, sampling_rate=16000, return_tensors="np")
    assert batch["input_values"].shape == (1, 5)


def test_wrong_sampling_rate_is_an_error():
    with pytest.raises(UserError, match="made for 16000 Hz and was given 8000 Hz"):
        SpeakerEncoderFeatureExtractor()(np.ones(5), sampling_rate=8000)


def test_absent_sampling_rate_is_a_warning(caplog):
    SpeakerEncoderFeatureExtractor()(np.ones(5))
    assert "Give sampling_rate" in caplog.text


def test_stereo_is_an_error():
    with pytest.raises(UserError, match=r"found shape \(2, 5\)"):
        SpeakerEncoderFeatureExtractor()([np.ones((2, 5))], sampling_rate=16000)
