"""From the archives of a published corpus to a folder that can be trained on.

A new corpus is one entry of `CORPORA`, and its archives' sums one line each in `archives.tsv`.
"""

from speaker_encoder.corpora.prepare.options import Prepared, PrepareOptions
from speaker_encoder.corpora.prepare.published import CORPORA, PublishedCorpus, known_archives
from speaker_encoder.corpora.prepare.steps import prepare

__all__ = [
    "CORPORA",
    "PrepareOptions",
    "Prepared",
    "PublishedCorpus",
    "known_archives",
    "prepare",
]
