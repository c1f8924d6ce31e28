"""A demonstration corpus of synthetic voices, built on this machine without any network.

The voices are eSpeak NG's. They show that training works; they say nothing about real speech.
"""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from speaker_encoder.corpora.cache import default_cache_dir
from speaker_encoder.corpora.demo_text import TRAIN_WORDS, VAL_WORDS, Words, make_sentence
from speaker_encoder.corpora.espeak import SpeechJob, dump_jobs

# fmt: off
TRAIN_VOICES = (
    "adam", "Alex", "Alicia", "Andy", "anika", "Annie", "announcer", "antonio", "AnxiousAndy",
    "aunty", "belinda", "boris", "caleb", "Denis", "Diogo", "ed", "edward", "f1", "f2", "f4", "f5",
    "Gene2", "gustave", "Henrique", "Hugo", "iven", "iven3", "john", "klatt", "klatt4", "Lee",
    "linda", "m1", "m2", "m3", "m5", "m6", "m7", "m8", "Marco", "Mario", "max", "michel", "miguel",
    "Mike", "norbert", "paul", "pedro", "RicishayMax", "rob", "robert", "sandro", "steph2",
    "Tweaky",
)
VAL_VOICES = (
    "Andrea", "david", "f3", "Gene", "grandma", "grandpa", "ian", "Jacky", "klatt3", "m4",
    "marcelo", "Michael", "Nguyen", "pablo", "quincy", "Reed", "shelby", "travis", "victor", "zac",
)
# fmt: on
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-029")
TRAIN_UTTERANCES, VAL_UTTERANCES = 12, 8
# How far one voice wanders from one sentence to the next, and how different its recordings sound:
# chosen so that a small random ECAPA starts near 19 % EER on the unseen voices and that 150 steps
# of GE2E bring it near 6 %. Without the channel it starts at 5 %, with a wider one it ends at 9 %.
PITCH_WANDER, SPEED_WANDER = 8, 0.15
CHANNEL_GAIN_DB, SNR_DB = 14.0, (8.0, 25.0)
# Fixed, and not the number of cores: what a process has said before colours what it says next.
NUM_PROCESSES = 2
_STALE_SECONDS = 3600
_README = """Synthetic demonstration corpus of speaker-encoder

Every voice here was made on this machine by the speech synthesiser eSpeak NG
(https://github.com/espeak-ng/espeak-ng, GPL-3.0-or-later; speech that it produces is not covered
by its licence). The sentences are put together from word lists. Nobody's voice was recorded, and
the recordings may be used for anything. The layout is that of VCTK.

It is a demonstration: it shows that the training works. Error rates on these voices say nothing
about real speech. This folder is a cache; it can be deleted and is then built again.
"""


@dataclass(frozen=True)
class DemoCorpus:
    """The demonstration corpus on disk, in VCTK's layout.

    Attributes:
        train_root: voices to train on.
        val_root: other voices with other sentences.
    """

    train_root: Path
    val_root: Path


def build_demo_corpus(cache_dir: str | os.PathLike[str] | None = None) -> DemoCorpus:
    """The demonstration corpus, synthesised at the first call and found again later.

    A corpus half built is never used, and several processes may ask at once.

    Args:
        cache_dir: where it is kept; None is ``SPEAKER_ENCODER_CACHE`` or the user's cache folder.

    Raises:
        RuntimeError: eSpeak NG failed; its output is in the text.
    """
    folder = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    folder = folder.expanduser().resolve()
    jobs = _plan(TRAIN_VOICES, TRAIN_WORDS, TRAIN_UTTERANCES, "train", first_number=1)
    jobs += _plan(VAL_VOICES, VAL_WORDS, VAL_UTTERANCES, "val", first_number=501)
    definition = hashlib.sha256(dump_jobs(jobs).encode()).hexdigest()[:12]
    built = folder / f"demo-{definition}"
    if not built.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _build(jobs, built)
    return DemoCorpus(built / "train", built / "val")


def _plan(
    voices: Sequence[str], words: Words, num_utterances: int, split: str, first_number: int
) -> list[SpeechJob]:
    """The sentences of all voices of a split, with paths below the folder of the corpus."""
    jobs = []
    for index, variant in enumerate(voices):
        generator = random.Random(f"{split} {variant}")
        speaker_id = f"p{first_number + index:03d}"
        voice = f"{generator.choice(ACCENTS)}+{variant}"
        pitch, pitch_range = generator.randint(10, 90), generator.randint(20, 80)
        speed = generator.randint(135, 200)
        for number in range(1, num_utterances + 1):
            jobs.append(
                SpeechJob(
                    path=f"{split}/wav48_silence_trimmed/{speaker_id}/"
                    f"{speaker_id}_{number:03d}_mic1.flac",
                    text=make_sentence(words, generator),
                    voice=voice,
                    pitch=pitch + generator.randint(-PITCH_WANDER, PITCH_WANDER),
                    pitch_range=pitch_range + generator.randint(-PITCH_WANDER, PITCH_WANDER),
                    words_per_minute=round(
                        speed * generator.uniform(1 - SPEED_WANDER, 1 + SPEED_WANDER)
                    ),
                    volume=generator.randint(40, 90),
                    seed=generator.randint(1, 1_000_000),
                    gain_db=CHANNEL_GAIN_DB,
                    snr_db=round(generator.uniform(*SNR_DB), 1),
                )
            )
    return jobs


def _build(jobs: Sequence[SpeechJob], built: Path) -> None:
    """Speaks all jobs into a folder beside ``built`` and renames it; the first to rename wins."""
    _remove_stale(built.parent)
    unfinished = Path(tempfile.mkdtemp(prefix="demo-", suffix=".part", dir=built.parent))
    try:
        _speak(jobs, unfinished)
        (unfinished / "README.txt").write_text(_README, encoding="utf-8")
        unfinished.chmod(0o755)
        try:
            os.rename(unfinished, built)
        except OSError:
            if not built.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _speak(jobs: Sequence[SpeechJob], folder: Path) -> None:
    """Speaks the jobs in processes of their own, since eSpeak NG keeps its state in globals."""
    program = (
        "import sys; from speaker_encoder.corpora.espeak import speak_jobs; "
        "speak_jobs(*sys.argv[1:])"
    )
    package_parent = str(Path(__file__).resolve().parents[2])
    search_path = os.pathsep.join(
        part for part in (package_parent, os.environ.get("PYTHONPATH")) if part
    )
    environment = {**os.environ, "PYTHONPATH": search_path, "OMP_NUM_THREADS": "1"}
    voices = sorted({job.voice for job in jobs})
    processes = []
    for index in range(NUM_PROCESSES):
        share = set(voices[index::NUM_PROCESSES])
        jobs_path = folder / f"jobs-{index}.json"
        jobs_path.write_text(dump_jobs([job for job in jobs if job.voice in share]), "ascii")
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", program, str(jobs_path), str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
        )
    errors = [process.communicate()[1] for process in processes]
    if any(process.returncode for process in processes):
        text = "\n".join(error.strip()[-2000:] for error in errors if error.strip())
        raise RuntimeError(f"eSpeak NG could not build the demonstration corpus:\n{text}")
    for jobs_path in folder.glob("jobs-*.json"):
        jobs_path.unlink()


def _remove_stale(folder: Path) -> None:
    """Removes what a killed build left behind an hour ago or earlier."""
    for unfinished in folder.glob("demo-*.part"):
        try:
            age = time.time() - unfinished.stat().st_mtime
        except OSError:
            continue
        if age > _STALE_SECONDS:
            shutil.rmtree(unfinished, ignore_errors=True)
