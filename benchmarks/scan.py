"""How long a scan of 100,000 files takes, the first time and when their headers are remembered.

Copies a few real FLAC and WAV files, and links them into folders speaker/session until the number is
reached, so that the file system's cache is warm. The counterpart is `soundfile.info` in a plain loop
over the files. Each measurement is made in a process of its own, in turns; the best of the rounds is
given, since other programs can only make it slower.

    python benchmarks/scan.py --data_dir ../data
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIDES = ("plain", "first", "second")
TARGET_SECONDS = {"first": 60.0, "second": 2.0}
FILES_PER_SESSION, SESSIONS_PER_SPEAKER = 10, 5


def link_corpus(data_dir: Path, folder: Path, num_files: int) -> Path:
    """Gives a folder of speaker/session/file, most of it FLAC, made of 400 real recordings."""
    sources = sorted((data_dir / "speechocean762" / "WAVE").glob("*/*.flac"))[:320]
    sources += sorted((data_dir / "voxceleb" / "wav").glob("*/*/*.wav"))[:80]
    (folder / "sources").mkdir()
    copies = [folder / "sources" / f"{number}{path.suffix}" for number, path in enumerate(sources)]
    for path, copy in zip(sources, copies, strict=True):
        shutil.copyfile(path, copy)
        os.utime(copy, (1_700_000_000, 1_700_000_000))  # a header just written is not remembered
    root = folder / "corpus"
    for number in range(num_files):
        session, place = divmod(number, FILES_PER_SESSION)
        speaker, session = divmod(session, SESSIONS_PER_SPEAKER)
        target = root / f"speaker{speaker:05d}" / f"session{session}"
        if place == 0:
            target.mkdir(parents=True)
        copy = copies[number % len(copies)]
        os.link(copy, target / f"{place:03d}{copy.suffix}")
    return root


def scan_plainly(root: Path) -> tuple[int, int]:
    """Gives the number of files and of their samples, as a plain loop finds them."""
    import soundfile

    infos = [soundfile.info(str(path)) for path in sorted(root.rglob("*.*"))]
    return len(infos), sum(info.frames for info in infos)


def scan_ours(root: Path, cache_dir: Path) -> tuple[int, int]:
    """Gives the same from a scan."""
    from speaker_encoder.corpora import scan

    utterances = scan(root, cache_dir=cache_dir, show_progress=False).utterances
    return len(utterances), sum(utterance.num_samples for utterance in utterances)


def run_side(side: str, root: Path) -> None:
    """Measures one side in this process, its imports included, and prints it as JSON."""
    start = time.perf_counter()
    found = scan_plainly(root) if side == "plain" else scan_ours(root, root.parent / "cache")
    print(json.dumps({"seconds": time.perf_counter() - start, "found": found}))


def measure(root: Path, num_rounds: int) -> dict[str, float]:
    """Gives the best seconds of each side."""
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    found = set()
    for _ in range(num_rounds):
        shutil.rmtree(root.parent / "cache", ignore_errors=True)
        for side, seconds in times.items():
            command = [sys.executable, __file__, "--side", side, "--root", str(root)]
            result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            seconds.append(result["seconds"])
            found.add(tuple(result["found"]))
    if len(found) != 1:
        raise SystemExit(f"The sides do not find the same (files, samples): {sorted(found)}.")
    return {side: min(seconds) for side, seconds in times.items()}


def make_parser() -> argparse.ArgumentParser:
    """Gives the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, help="folder of real speech")
    parser.add_argument("--num_files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    return parser


def rows(arguments: argparse.Namespace) -> list[tuple]:
    """Measures, prints a line per scan, and gives (what, ours, counterpart, ratio, unit)."""
    with tempfile.TemporaryDirectory() as folder:
        root = link_corpus(arguments.data_dir, Path(folder), arguments.num_files)
        seconds = measure(root, arguments.rounds)
    measured = []
    for side, words in (("first", "first scan"), ("second", "second start")):
        ratio = seconds["plain"] / seconds[side]
        print(
            f"{words} of {arguments.num_files} files: {seconds[side]:.2f} s, the plain loop "
            f"{seconds['plain']:.2f} s (ratio {ratio:.2f}); wanted for 100,000 files: less than "
            f"{TARGET_SECONDS[side]:.0f} s"
        )
        what = f"scanning {arguments.num_files} files, {words}, against a loop of soundfile.info"
        measured.append((what, seconds[side], seconds["plain"], ratio, "s"))
    return measured


def main() -> None:
    """Prints what was measured."""
    arguments = make_parser().parse_args()
    if arguments.side:
        run_side(arguments.side, arguments.root)
    else:
        rows(arguments)


if __name__ == "__main__":
    main()
