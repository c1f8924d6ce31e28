"""The licence that a folder's own card names."""

import pytest

from speaker_encoder.modeling.card_license import read_card_license

OTHER = "license: other\nlicense_name: voices-1.0\nlicense_link: "
NAMED = {"source_license": "other", "source_license_name": "voices-1.0"}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("tags: [a]\nlicense: cc-by-4.0", {"source_license": "cc-by-4.0"}),
        (
            f"{OTHER}https://example.org/l",
            {**NAMED, "source_license_link": "https://example.org/l"},
        ),
        (
            f"{OTHER}LICENSE",
            {**NAMED, "source_license_link": "https://huggingface.co/a/b/blob/main/LICENSE"},
        ),
        (f"{OTHER}[1]", NAMED),
        ("license: [mit, cc0-1.0]", {}),
        ("license: 'm\\nit'", {}),
        ("license: !!python/object/apply:os.getcwd []", {}),
        ("license: [", {}),
        ("tags: [a]", {}),
        ("- mit", {}),
    ],
)
def test_license_of_a_card(tmp_path, header, expected):
    (tmp_path / "README.md").write_text(f"---\n{header}\n---\n# license: mit\n")
    assert read_card_license(tmp_path, "a/b") == expected


def test_folder_that_does_not_tell(tmp_path):
    assert read_card_license(tmp_path) == {}
    (tmp_path / "README.md").write_bytes(b"---\nlicense: \xff\n---\n")
    assert read_card_license(tmp_path) == {}
    (tmp_path / "README.md").write_text(f"---\n{OTHER}LICENSE\n---\n")
    assert read_card_license(tmp_path) == NAMED  # a file here is nobody else's
