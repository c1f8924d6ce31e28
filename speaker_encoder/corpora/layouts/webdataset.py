"""Tar shards as webdataset writes them."""

from speaker_encoder.corpora.layouts.layout import ScanRequest, ShardLayout


class WebDataset(ShardLayout):
    """Tars of samples: ``p226_001.flac`` and, beside it, ``p226_001.json`` or ``p226_001.spk``."""

    suffix = ".tar"
    pattern = 'tar shards, with samples KEY.flac and KEY.json ({"speaker_id": ...}) or KEY.spk'

    @classmethod
    def recognises(cls, request: ScanRequest) -> bool:
        """The corpus is given as tars, or its folders hold tars and no audio."""
        if request.address is not None:
            return not request.address.endswith(".parquet")
        return bool(request.tree.ignored[".tar file"])
