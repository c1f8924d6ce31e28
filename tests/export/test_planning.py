"""Units and batches: everything once, and little padding."""

from hypothesis import given
from hypothesis import strategies as st

from speaker_encoder.export.names import parts_of, safe_name, safe_path, short_ids
from speaker_encoder.export.planning import MAX_PADDING, plan_batches, plan_units

lengths = st.lists(st.integers(400, 300_000), max_size=60)


@given(lengths, st.integers(0, 2_000_000))
def test_batches_hold_each_waveform_once_with_at_most_5_percent_padding(num_samples, most):
    batches = plan_batches(num_samples, most)
    assert sorted(i for batch in batches for i in batch) == list(range(len(num_samples)))
    for batch in batches:
        padded = len(batch) * max(num_samples[i] for i in batch)
        assert len(batch) == 1 or padded <= most
        assert padded - sum(num_samples[i] for i in batch) <= MAX_PADDING * padded


@given(lengths, st.integers(1, 2_000_000))
def test_units_hold_each_utterance_once_and_long_ones_alone(num_samples, most):
    units = plan_units(num_samples, most, longest=200_000)
    assert sorted(i for unit in units for i in unit.indices) == list(range(len(num_samples)))
    for unit in units:
        long = [num_samples[i] > 200_000 for i in unit.indices]
        assert unit.is_long == any(long) and (not any(long) or len(long) == 1)
        assert len(unit.indices) == 1 or sum(num_samples[i] for i in unit.indices) <= most


def test_utterances_of_like_length_share_a_batch():
    assert plan_batches([100, 50, 99, 100], 1000) == [[0, 3, 2], [1]]
    assert plan_batches([100, 100], 0) == [[0], [1]]


@given(st.text(max_size=300))
def test_a_safe_name_is_one_file_name(text):
    name = safe_name(text)
    assert name and "/" not in name and "\0" not in name and name not in (".", "..")
    assert len(name.encode()) <= 255


@given(st.text(max_size=40), st.text(max_size=40))
def test_different_texts_have_different_safe_names(first, second):
    assert (safe_name(first) == safe_name(second)) == (first == second)


@given(st.text(max_size=60))
def test_a_safe_path_stays_below_its_folder(text):
    path = safe_path(parts_of(text))
    assert not path.is_absolute() and ".." not in path.parts


@given(st.lists(st.text(min_size=1, max_size=20), unique=True, max_size=20))
def test_short_ids_differ_and_have_no_white_space(texts):
    words = short_ids(texts)
    assert len(set(words)) == len(words)
    assert all(len(word.split()) <= 1 for word in words)
