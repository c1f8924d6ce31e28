"""Writes the embeddings of a corpus beside its audio, or in the form another TTS system reads.

example:
  speaker-encoder embed --model_name ecapa --dataset_name VCTK --dataset_dir VCTK-Corpus
  speaker-encoder embed --model_name ecapa --dataset_dir corpus --checkpoint runs/my_run/model \\
      --output_dir embeddings --format pt --format parquet --average robust
  speaker-encoder embed --model_name dvector --dataset_dir corpus --checkpoint runs/my_run \\
      --space pretrained --output_dir embeddings
  torchrun --nproc_per_node 4 create_speaker_emb_dataset.py --model_name ecapa \\
      --dataset_dir corpus --model_device cuda
It may be stopped at any time: the same command goes on from there.
"""

from __future__ import annotations

import argparse
import os


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `embed`."""
    parser.add_argument(
        "--model_name", required=True,
        help="ecapa, wavlm-base-plus-sv, ... (docs/encoders.md has all), or a name of your own; "
        "also the files' extension",
    )  # fmt: skip
    parser.add_argument("--dataset_dir", required=True, metavar="DIR", help="the corpus")
    parser.add_argument(
        "--dataset_name", default="auto",
        help="VCTK, LibriTTS, LibriSpeech, VoxCeleb, CMU_ARCTIC, folders, sessions, list, kaldi, "
        "huggingface, webdataset, or auto (default)",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", metavar="PATH",
        help="a run directory, a checkpoint-<step>, a model folder, a Hub id, or the original "
        "system's encoder.pt; default: the published weights of model_name",
    )  # fmt: skip
    parser.add_argument(
        "--model_device", default="best", help="cpu, cuda, cuda:<number>, best (default)"
    )
    _add_output_arguments(parser)
    parser.add_argument(
        "--space", default="own",
        help="own (default), or pretrained: mapped to the embeddings of the encoder that the model "
        "was fine-tuned from, for a TTS model that was trained on those",
    )  # fmt: skip
    _add_audio_arguments(parser)


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output_dir", metavar="DIR", help="write there, in the corpus's own tree; default: beside"
    )
    parser.add_argument(
        "--format", dest="formats", action="append", metavar="FORMAT",
        help="pt (default), npy, safetensors, parquet, kaldi, coqui, cosyvoice, speecht5; may be "
        "repeated",
    )  # fmt: skip
    parser.add_argument(
        "--average", default="mean",
        help="of a speaker's utterances: mean (default), normalized, robust (without outliers)",
    )  # fmt: skip
    parser.add_argument(
        "--overwrite", action="store_true",
        help="replace embeddings of another model or of other options",
    )  # fmt: skip
    parser.add_argument("--dry_run", action="store_true", help="say what would be done, no more")
    parser.add_argument("--report", metavar="FILE", help="where the report goes")


def _add_audio_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trim_silence", default="off",
        help="off (default), energy (edges below -30 dBFS), vad (edges and long pauses)",
    )  # fmt: skip
    parser.add_argument("--windows", type=float, metavar="SECONDS",
                        help="embed as the mean over windows of this length")  # fmt: skip
    parser.add_argument("--hop", type=float, metavar="SECONDS", help="from window to window")
    parser.add_argument("--min_seconds", type=float, default=0.0, metavar="SECONDS",
                        help="leave shorter utterances out")  # fmt: skip
    parser.add_argument("--max_seconds", type=float, metavar="SECONDS",
                        help="leave longer utterances out")  # fmt: skip
    parser.add_argument("--batch_seconds", type=float, metavar="SECONDS",
                        help="audio of one batch; 0: one utterance at a time")  # fmt: skip
    parser.add_argument(
        "--num_workers", type=_num_workers, metavar="N",
        help="processes that decode; auto: on a CPU, they and the threads as is fastest, measured",
    )  # fmt: skip
    parser.add_argument("--dtype", default="float32", help="float32 (default) or bfloat16")
    parser.add_argument(
        "--engine", default="torch",
        help="torch (default), or ONNX Runtime on a CPU: onnx, onnx-int8 (not exact; wavlm only)",
    )  # fmt: skip
    parser.add_argument("--multi_rec_session", action="store_true",
                        help="an unknown layout is speaker/session/file")  # fmt: skip


def _num_workers(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdigit() else text


def run(arguments: argparse.Namespace) -> int:
    """Exports; gives the exit code."""
    from speaker_encoder.export import ExportOptions, embed_corpus
    from speaker_encoder.training.logs import log_to_terminal

    is_main = os.environ.get("RANK", "0") == "0"
    if is_main:
        log_to_terminal()
    options = ExportOptions(
        model_name=arguments.model_name,
        dataset_dir=arguments.dataset_dir,
        dataset_name=arguments.dataset_name,
        checkpoint=arguments.checkpoint,
        model_device=arguments.model_device,
        output_dir=arguments.output_dir,
        formats=tuple(dict.fromkeys(arguments.formats or ["pt"])),
        average=arguments.average,
        trim_silence=arguments.trim_silence,
        windows_seconds=arguments.windows,
        hop_seconds=arguments.hop,
        min_seconds=arguments.min_seconds,
        max_seconds=arguments.max_seconds,
        batch_seconds=arguments.batch_seconds,
        num_workers=arguments.num_workers,
        dtype=arguments.dtype,
        engine=arguments.engine,
        space=arguments.space,
        overwrite=arguments.overwrite,
        dry_run=arguments.dry_run,
        report_path=arguments.report,
        multi_rec_session=arguments.multi_rec_session,
    )
    outcome = embed_corpus(options)
    if is_main:
        print(outcome.message, flush=True)
    return outcome.exit_code if is_main else 0
