"""Fine-tunes a speaker encoder as a JSON or YAML config says, or goes on with a stopped run.

example:
  speaker-encoder train --config train_config.json
  speaker-encoder train --config train_config.json --override num_epochs=5 --override seed=1
  torchrun --nproc_per_node 4 -m speaker_encoder train --config train_config.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from speaker_encoder.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `train`."""
    parser.add_argument(
        "--config",
        "--config_path",
        dest="config_path",
        required=True,
        metavar="FILE",
        help="the config, JSON or YAML; train_config.schema.json describes its keys",
    )
    parser.add_argument(
        "--override",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replace a key of the config, dotted for nested ones: loss.variant=contrast",
    )
    parser.add_argument(
        "--validate_only",
        action="store_true",
        help="check the config and the corpora, print both, train nothing",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="delete a finished run of the same run_id and start anew",
    )


def run(arguments: argparse.Namespace) -> int:
    """Trains; gives the exit code."""
    from speaker_encoder.training.config import TrainConfig
    from speaker_encoder.training.logs import log_to_terminal

    config = TrainConfig.from_json(arguments.config_path, arguments.override)
    is_launched = "WORLD_SIZE" in os.environ
    # cards are counted without CUDA, which would fix which of them this process sees
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    if os.environ.get("RANK", "0") == "0":
        log_to_terminal()
    if not is_launched:
        _check(config)
    if arguments.validate_only:
        return _validate(config)
    if config.data_parallel and len(config.data_parallel) > 1 and not is_launched:
        return _launch(config, arguments)
    from speaker_encoder.training.run import train

    outcome = train(config, overwrite=arguments.overwrite)
    if outcome.message:
        print(outcome.message, flush=True)
    if int(os.environ.get("RANK", "0")) > 0:
        # Everything is written; threads of the process group can abort an ordinary end.
        sys.stderr.flush()
        os._exit(EXIT_DONE)
    # the launcher would take another code for a failure and end the other processes
    return outcome.exit_code if not is_launched else EXIT_DONE


def _check(config: TrainConfig) -> None:
    """Checks what needs torch: the devices, and the model as far as it goes without weights.

    Raises:
        UserError: with every problem.
    """
    from speaker_encoder.training.build import check_model
    from speaker_encoder.training.devices import check_devices

    problems = check_devices(config)
    for title, stage in _stages(config):
        try:
            check_model(stage, is_stage=bool(config.stages))
        except UserError as error:
            problems.append(f"{title}model_name: {error}")
    if problems:
        raise UserError("\n".join(problems))


def _launch(config: TrainConfig, arguments: argparse.Namespace) -> int:
    """Starts one process per device; gives the exit code of the whole."""
    from speaker_encoder.training.cluster import launch_processes
    from speaker_encoder.training.publishing import push_problem
    from speaker_encoder.training.report import Results
    from speaker_encoder.training.run import TrainOutcome
    from speaker_encoder.training.run_dir import RunDirectory

    code = launch_processes(config, _command_line(arguments))
    run = RunDirectory(Path(config.output_dir) / config.run_id)
    if code == EXIT_DONE and run.is_finished:
        problem = push_problem(run) if config.push_to_hub else None
        return TrainOutcome(run, Results.load(run.results_path), "", problem).exit_code
    return code


def _validate(config: TrainConfig) -> int:
    """Prints the resolved config and what the corpora hold."""
    from speaker_encoder.training.data import load_data
    from speaker_encoder.training.recipe import fill_recipe
    from speaker_encoder.training.resume import as_started
    from speaker_encoder.training.run_dir import RunDirectory

    config = as_started(config, RunDirectory(Path(config.output_dir) / config.run_id))
    if config.left_to_recipe:
        config, _ = fill_recipe(config)
        _check(config)
    found = [(title, load_data(stage)) for title, stage in _stages(config)]
    print(json.dumps(config.to_dict(), indent=2, ensure_ascii=False))
    for title, data in found:
        for split in (data.training, data.replay, data.validation):
            if split is not None:
                print(f"{title}{split}")
        if data.trials is not None and data.trials.labels is not None:
            num_targets, num_trials = int(data.trials.labels.sum()), len(data.trials.labels)
            print(f"{title}trials: {num_targets} target, {num_trials - num_targets} nontarget")
        if data.reference is not None:
            print(f"{title}{data.reference}")
    return EXIT_DONE


def _stages(config: TrainConfig) -> list[tuple[str, TrainConfig]]:
    """Gives the stages with their titles, as if each started from the first encoder."""
    stages = config.stage_configs(chained=False)
    named = [(f"stage {number}: ", stage) for number, stage in enumerate(stages, 1)]
    return named or [("", config)]


def _command_line(arguments: argparse.Namespace) -> list[str]:
    """Gives these arguments again, for the processes of a launch."""
    overrides = [part for value in arguments.override for part in ("--override", value)]
    overwrite = ["--overwrite"] if arguments.overwrite else []
    return ["train", "--config", arguments.config_path, *overrides, *overwrite]
