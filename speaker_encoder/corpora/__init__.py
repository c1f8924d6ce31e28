"""Corpora on disk, whatever their layout, as one sorted table of utterances."""

from speaker_encoder.corpora.demo import DemoCorpus, build_demo_corpus
from speaker_encoder.corpora.layouts import LAYOUTS
from speaker_encoder.corpora.records import Corpus, CorpusSummary, ExcludedFile, Utterance
from speaker_encoder.corpora.scan import scan

__all__ = [
    "LAYOUTS",
    "Corpus",
    "CorpusSummary",
    "DemoCorpus",
    "ExcludedFile",
    "Utterance",
    "build_demo_corpus",
    "scan",
]
