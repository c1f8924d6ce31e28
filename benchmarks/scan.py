"""How long a scan of 100,000 files takes, the first time and when their headers are remembered.

Copies a few real FLAC and WAV files, and links them into folders speaker/session until the number
is reached, so that the file system's cache is warm. The counterpart is `soundfile.info` in a plain
loop over the files. Each measurement is made in a process of its own, in turns, its imports
included. The best of the rounds is given, by the clock and in seconds of the process: other
programs make the first longer, and hardly change the second.

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
    if not sources:
        raise SystemExit(
            f"No speechocean762/WAVE and no voxceleb/wav with recordings in {data_dir}."
        )
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
    start = (time.perf_counter(), time.process_time())
    found = scan_plainly(root) if side == "plain" else scan_ours(root, root.parent / "cache")
    seconds = (time.perf_counter() - start[0], time.process_time() - start[1])
    print(json.dumps({"seconds": seconds, "found": found}))


def measure(root: Path, num_rounds: int) -> dict[str, tuple[float, float]]:
    """Gives the best seconds of each side, by the clock and of the process."""
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    found = set()
    for _ in range(num_rounds):
        shutil.rmtree(root.parent / "cache", ignore_errors=True)
        for side, seconds in times.items():
            command = [
                *(sys.executable, __file__, "--data_dir", ".", "--side", side),
                *("--root", str(root)),
            ]
            result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            seconds.append(tuple(result["seconds"]))
            found.add(tuple(result["found"]))
    if len(found) != 1:
        raise SystemExit(f"The sides do not find the same (files, samples): {sorted(found)}.")
    return {
        side: (min(clock for clock, _ in seconds), min(process for _, process in seconds))
        for side, seconds in times.items()
    }


def rows(data_dir: Path, num_files: int, num_rounds: int) -> list[tuple]:
    """Prints a line per scan, and gives (what, ours, counterpart, ratio, unit)."""
    with tempfile.TemporaryDirectory() as folder:
        root = link_corpus(data_dir, Path(folder), num_files)
        seconds = measure(root, num_rounds)
    measured: list[tuple] = []
    for side, words in (("first", "first scan"), ("second", "second start")):
        what = f"headers of {num_files} files, {words}, against a loop of soundfile.info"
        for kind, unit in enumerate(("s", "s of the process")):
            ours, plain = seconds[side][kind], seconds["plain"][kind]
            measured.append((what, ours, plain, plain / ours, unit))
        (ours, process), (plain, plain_process) = seconds[side], seconds["plain"]
        print(
            f"{words} of {num_files} files: {ours:.2f} s ({process:.2f} s of the process), "
            f"the plain loop {plain:.2f} s ({plain_process:.2f} s); "
            f"for 100,000 files less than {TARGET_SECONDS[side]:.0f} s is wanted"
        )
    return measured


def main() -> None:
    """Measures what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of real speech")
    parser.add_argument("--num_files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the rows for `python -m benchmarks`")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side(arguments.side, arguments.root)
        return
    measured = rows(arguments.data_dir, arguments.num_files, arguments.rounds)
    if arguments.json:
        arguments.json.write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
