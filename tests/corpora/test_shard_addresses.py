"""Addresses of shards: what they may hold, and what they mean."""

import pytest
from shard_files import write_tars

from speaker_encoder.corpora import scan
from speaker_encoder.corpora.shards import find_shards, refuse_secrets
from speaker_encoder.errors import UserError

SECRETS = [
    "https://me:PW@host/{0..1}.tar",
    "https://me:P/PW@host/0.tar",
    "HTTPS://PW@host/0.tar",
    "s3://me:PW@bucket/*.tar",
    "https://host/0.tar?sig=PW",
    "az://box/0.tar?sv=1&sig=PW",
    "simplecache::https://me:PW@host/0.tar",
]


@pytest.mark.parametrize("address", SECRETS)
def test_a_secret_in_an_address_is_refused_and_not_shown(address, tmp_path):
    for use in (
        lambda: scan(address),
        lambda: scan(tmp_path, list_path=address),
        lambda: find_shards(address, ".tar"),
    ):
        with pytest.raises(UserError, match=r"holds a (name or password|query)") as caught:
            use()
        assert "PW" not in str(caught.value)


def test_addresses_without_secrets_are_not_refused():
    for address in (
        "https://host:8000/{0..1}.tar",
        "http://[::1]:80/0.tar",
        "hf://datasets/user/voices@refs/convert/parquet/default/train/*.parquet",
        "s3://bucket/train-?.tar",
        "/data/a@b/0.tar?sig=1",
    ):
        refuse_secrets(address)


@pytest.mark.parametrize("name", ["old[1]/a.tar", "cu{r,l}y/a.tar", "a[0].tar", "{1..2}.tar"])
def test_an_existing_file_is_itself_whatever_its_name_looks_like(name, tmp_path, data_dir):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    readers = scan(data_dir / "voxceleb" / "wav", use_cache=False).utterances[:2]
    (write_tars(tmp_path / "written", readers) / "000000.tar").rename(path)
    corpus = scan(path, use_cache=False)
    assert corpus.root == str(path.parent)
    assert [row.path.partition("#")[0] for row in corpus.utterances] == [str(path)] * 2
    assert corpus == scan(path.parent, use_cache=False)
