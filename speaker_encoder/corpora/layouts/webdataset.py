"""Tar shards as webdataset writes them."""

from speaker_encoder.corpora.layouts.layout import Collected, Layout, ScanRequest


class WebDataset(Layout):
    """Tars of samples: ``p226_001.flac`` and, beside it, ``p226_001.json`` or ``p226_001.spk``."""

    pattern = 'tar shards, with samples KEY.flac and KEY.json ({"speaker_id": ...}) or KEY.spk'

    @classmethod
    def recognises(cls, request: ScanRequest) -> bool:
        """The corpus is given as tars, or its folders hold tars and no audio."""
        if request.address is not None:
            return not request.address.endswith(".parquet")
        return bool(request.tree.ignored[".tar file"])

    def collect(self) -> Collected:
        """All recordings with their speakers and lengths.

        Raises:
            UserError: there are no shards, or one is compressed.
        """
        from speaker_encoder.corpora.shards import collect_shards

        request = self.request
        return collect_shards(
            request.address or request.root,
            ".tar",
            cache_dir=request.cache_dir,
            use_cache=request.use_cache,
            show_progress=request.show_progress,
        )
