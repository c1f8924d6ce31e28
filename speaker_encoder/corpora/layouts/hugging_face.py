"""Hugging Face datasets as they lie on the Hub: parquet files with audio in them."""

from speaker_encoder.corpora.layouts.layout import Collected, Layout, ScanRequest


class HuggingFace(Layout):
    """Parquet files with a column of audio and one of speakers."""

    pattern = "parquet files with a column of audio (bytes, path) and one of speakers"

    @classmethod
    def recognises(cls, request: ScanRequest) -> bool:
        """The corpus is given as parquet files, or its folders hold such and no audio."""
        address = request.address
        if address is not None:
            is_repository = address.startswith("hf://") and not address.endswith(".tar")
            return address.endswith(".parquet") or is_repository
        return bool(request.tree.ignored[".parquet file"])

    def collect(self) -> Collected:
        """All recordings with their speakers and lengths.

        Raises:
            UserError: there are no shards, or they lack a column.
        """
        from speaker_encoder.corpora.shards import collect_shards

        request = self.request
        return collect_shards(
            request.address or request.root,
            ".parquet",
            cache_dir=request.cache_dir,
            use_cache=request.use_cache,
            show_progress=request.show_progress,
        )
