"""Results of runs made by hand: what people see of them needs no training; not a test itself."""

from dataclasses import replace

from speaker_encoder.training.interpolation import Choice, CurvePoint
from speaker_encoder.training.report import Interpolated, Measured, ReferenceResults, Results

UNTOUCHED = Measured(0, 0.0598, (0.0358, 0.0846), 0.431, (0.310, 0.552))
TRAINED = Measured(100, 0.0498, (0.0290, 0.0695), 0.380, (0.270, 0.490))
EERS = (0.0598, 0.0545, 0.0498, 0.0500, 0.0518, 0.0549)
REFERENCE_EERS = (0.0204, 0.0190, 0.0204, 0.0286, 0.0395, 0.0476)
NOTHING = "no alpha is better than alpha 0 (5.98 %) beyond noise; the lowest is 5.85 % at alpha 0.4"
REASON = "the lowest validation EER that keeps the reference EER at or below 2.24 %"
REFERENCE = ReferenceResults(
    0.0204, (0.0067, 0.0328), 0.0222, (0.0084, 0.0352), 0.0018, (-0.0054, 0.0101),
    "no difference beyond noise", 32, 588, 16248,
)  # fmt: skip


def curve(
    eers=EERS, reference_eers=REFERENCE_EERS, better: tuple[int, ...] = ()
) -> list[CurvePoint]:
    """Points at equal distances from 0 to 1, with intervals of half the value to each side."""
    noise = "no difference beyond noise"
    points = []
    for number, eer in enumerate(eers):
        other = reference_eers[number] if reference_eers else None
        points.append(
            CurvePoint(
                alpha=number / (len(eers) - 1),
                eer=eer,
                eer_interval=(0.5 * eer, 1.5 * eer),
                against_best=noise,
                against_pretrained="better" if number in better else noise,
                reference_eer=other,
                reference_interval=None if other is None else (0.5 * other, 1.5 * other),
            )
        )
    return points


def better(**changes) -> Results:
    """A run that gained at alpha 0.4."""
    found = Results(
        model_name="dvector", steps=150, seconds=151.0, num_train_speakers=170,
        num_train_utterances=1870, train_hours=2.2, before=UNTOUCHED, after=TRAINED,
        eer_difference=-0.01, eer_difference_interval=(-0.0232, -0.0016), verdict="better",
        num_val_speakers=40, num_targets=1120, num_nontargets=4480,
        interpolation=Interpolated(100, curve(better=(2,)), Choice(0.4, REASON, 0.0224)),
        reference=REFERENCE, cosine_to_pretrained=0.931,
    )  # fmt: skip
    return replace(found, **changes)


def untouched(**changes) -> Results:
    """A run where nothing beat the encoder that it started from."""
    kept = replace(
        REFERENCE, after_eer=REFERENCE.before_eer, after_interval=REFERENCE.before_interval,
        eer_difference=0.0, eer_difference_interval=(0.0, 0.0),
    )  # fmt: skip
    values = {
        "after": UNTOUCHED, "eer_difference": 0.0, "eer_difference_interval": (0.0, 0.0),
        "verdict": "no difference beyond noise", "num_train_speakers": 10, "reference": kept,
        "num_train_utterances": 110, "train_hours": 0.12, "cosine_to_pretrained": 1.0,
        "interpolation": Interpolated(
            100, curve((0.0598, 0.0590, 0.0585, 0.0601, 0.0622, 0.0641)),
            Choice(0.0, NOTHING, 0.0224),
        ),
    }  # fmt: skip
    return better(**{**values, **changes})
