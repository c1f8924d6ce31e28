"""Finds what ruins a training before it begins: wrong labels, duplicates, broken recordings."""

from speaker_encoder.doctor.examine import Diagnosis, examine
from speaker_encoder.doctor.findings import KINDS, Finding
from speaker_encoder.doctor.keep_list import make_keep_list

__all__ = ["KINDS", "Diagnosis", "Finding", "examine", "make_keep_list"]
