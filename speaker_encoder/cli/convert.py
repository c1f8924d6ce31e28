"""Writes an encoder in the form that other software loads, and compares it with the original.

example:
  speaker-encoder convert runs/mine --to onnx mine_onnx
  speaker-encoder convert ecapa --to speechbrain mine_speechbrain
  speaker-encoder convert wavlm-base-plus-sv --to transformers mine_wavlm
onnx: one file from waveforms to embeddings, any batch size and length, for ONNX Runtime.
speechbrain: of an ECAPA-TDNN, for SpeechBrain's EncoderClassifier and SpeakerRecognition.
transformers: of a WavLM, for transformers' WavLMForXVector.
"""

from __future__ import annotations

import argparse

from speaker_encoder.errors import EXIT_DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `convert`."""
    parser.add_argument(
        "model", metavar="MODEL",
        help="a name (docs/encoders.md has all), Hub id, model folder, run or checkpoint",
    )  # fmt: skip
    parser.add_argument("output_dir", metavar="DIR", help="a new folder to write")
    parser.add_argument(
        "--to", required=True, metavar="FORM", help="onnx, speechbrain or transformers"
    )
    parser.add_argument(
        "--repo_id", metavar="OWNER/NAME",
        help="of the Hub repository that the folder will become, to be named in its files",
    )  # fmt: skip
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files of the same names in DIR"
    )


def run(arguments: argparse.Namespace) -> int:
    """Converts; gives the exit code."""
    from speaker_encoder.hub.convert import convert, refuse_before_loading
    from speaker_encoder.verification.systems import load_any_encoder

    refuse_before_loading(arguments.to, arguments.output_dir, arguments.overwrite)
    conversion = convert(
        load_any_encoder(arguments.model),
        arguments.to,
        arguments.output_dir,
        repo_id=arguments.repo_id,
        overwrite=arguments.overwrite,
    )
    for check in conversion.checks:
        print(check)
    print(f"written to {conversion.folder}: {', '.join(conversion.files)}")
    return EXIT_DONE
