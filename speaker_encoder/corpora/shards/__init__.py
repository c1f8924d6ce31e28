"""Corpora of shards: tar files as webdataset writes them, and parquet files of the Hub.

Nothing is unpacked. An index says where each recording lies; it is made once and remembered.
"""

from speaker_encoder.corpora.shards.index import collect_shards, read_indexes
from speaker_encoder.corpora.shards.places import (
    find_shards,
    folder_of,
    is_address,
    refuse_secrets,
)

__all__ = [
    "collect_shards",
    "find_shards",
    "folder_of",
    "is_address",
    "read_indexes",
    "refuse_secrets",
]
