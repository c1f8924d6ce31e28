"""Hugging Face datasets as they lie on the Hub: parquet files with audio in them."""

from speaker_encoder.corpora.layouts.layout import ScanRequest, ShardLayout


class HuggingFace(ShardLayout):
    """Parquet files with a column of audio and one of speakers."""

    suffix = ".parquet"
    pattern = "parquet files with a column of audio (bytes, path) and one of speakers"

    @classmethod
    def recognises(cls, request: ScanRequest) -> bool:
        """The corpus is given as parquet files, or its folders hold such and no audio."""
        address = request.address
        if address is not None:
            is_repository = address.startswith("hf://") and not address.endswith(".tar")
            return address.endswith(".parquet") or is_repository
        return bool(request.tree.ignored[".parquet file"])
