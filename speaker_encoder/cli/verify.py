"""Says whether two recordings are of one speaker: score, decision, where the threshold is from.

example:
  speaker-encoder verify a.wav b.wav
  speaker-encoder verify a.wav b.wav --model runs/mine/model --results eval/results.json
  speaker-encoder verify a.wav b.wav --model dvector --threshold 0.75
The score is the cosine of the two embeddings. No threshold fits every microphone and language:
measure your own with `speaker-encoder evaluate` and give its results.json.
"""

from __future__ import annotations

import argparse
from typing import Any

from speaker_encoder.errors import EXIT_DONE, UserError

SHORT_SECONDS = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `verify`."""
    parser.add_argument("recordings", nargs=2, metavar="AUDIO", help="two audio files")
    parser.add_argument(
        "--model", default="ecapa", metavar="PATH_OR_ID",
        help="a name (docs/encoders.md has all), Hub id, model folder, run or checkpoint "
        "(default: ecapa)",
    )  # fmt: skip
    parser.add_argument(
        "--threshold", type=float, metavar="SCORE", help="one speaker at or above this score"
    )
    parser.add_argument(
        "--results", metavar="FILE",
        help="take the threshold from the results.json of an evaluation of this model",
    )  # fmt: skip
    parser.add_argument(
        "--false_accept_rate", type=float, metavar="RATE",
        help="with --results: its threshold for this rate, in place of the equal error rate",
    )  # fmt: skip
    parser.add_argument(
        "--model_device", default="best", help="cpu, cuda, cuda:<number>, best (default)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Verifies; gives the exit code."""
    import json
    import math

    if arguments.threshold is not None and arguments.results is not None:
        raise UserError("--threshold and --results both give a threshold. Leave one out.")
    if arguments.threshold is not None and not math.isfinite(arguments.threshold):
        raise UserError(f"--threshold must be a number, found {arguments.threshold}.")
    if arguments.false_accept_rate is not None and arguments.results is None:
        raise UserError("--false_accept_rate chooses a threshold of --results. Give --results.")
    from speaker_encoder.audio import read_info

    seconds = [read_info(path).seconds for path in arguments.recordings]
    from speaker_encoder.verification.systems import EncoderSource
    from speaker_encoder.verification.thresholds import (
        Threshold,
        published_threshold,
        threshold_of_results,
    )

    source = EncoderSource(arguments.model, device=arguments.model_device, use_cache=False)
    threshold: Threshold | None
    if arguments.threshold is not None:
        threshold = Threshold(arguments.threshold, "--threshold")
    elif arguments.results is not None:
        threshold = threshold_of_results(
            arguments.results, source.weights_sha256, arguments.false_accept_rate
        )
    else:
        threshold = published_threshold(arguments.model)
    embeddings = source.encoder.encode(arguments.recordings, show_progress=False)
    score = float(embeddings[0].double() @ embeddings[1].double())
    found = {
        "recordings": arguments.recordings,
        "seconds": seconds,
        "model": arguments.model,
        "score": score,
        "is_same_speaker": None if threshold is None else score >= threshold.value,
        "threshold": None if threshold is None else threshold.value,
        "threshold_from": None if threshold is None else threshold.source,
    }
    print(json.dumps(found, ensure_ascii=False) if arguments.json else _as_text(found))
    return EXIT_DONE


def _as_text(found: dict[str, Any]) -> str:
    lines = [f"score     {found['score']:.4f} (cosine, {found['model']})"]
    if found["threshold"] is None:
        lines.append(
            "decision  none: no threshold is known for this model; give --threshold or --results"
        )
    else:
        decision = "same speaker" if found["is_same_speaker"] else "different speakers"
        lines.append(f"decision  {decision}")
        lines.append(f"threshold {found['threshold']:.4f}, from {found['threshold_from']}")
    for path, length in zip(found["recordings"], found["seconds"], strict=True):
        if length < SHORT_SECONDS:
            lines.append(
                f"note      {path} has only {length:.1f} s; scores of short recordings vary more"
            )
    return "\n".join(lines)
