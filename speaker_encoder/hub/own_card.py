"""A model card that the user wrote: its text stays, what its header lacks is added."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speaker_encoder.errors import UserError
from speaker_encoder.hub.origins import License

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

_HEADER = re.compile(r"\A(\s*---(\r?\n))(.*?)(^---[ \t]*(?:\r?\n|\Z))", re.DOTALL | re.MULTILINE)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OwnCard:
    """The README.md of a model's folder.

    Attributes:
        text: of the file.
        header: its YAML header as plain data; empty: it has none.
    """

    text: str
    header: dict[str, Any]

    def license(self, wanted: License | None) -> License | None:
        """Gives the licence that the card names, else, or where it names several, the wanted one.

        Raises:
            UserError: both are there and differ.
        """
        found = self.header.get("license") or []
        names = [str(name) for name in (found if isinstance(found, list) else [found])]
        name, link = self.header.get("license_name"), self.header.get("license_link")
        if wanted is not None and names and wanted.identifier not in (*names, name):
            raise UserError(
                f"license: found {wanted.identifier!r}, but the folder's README.md says "
                f"{str(name or ', '.join(names))!r}. Change one of them, or leave license out."
            )
        if len(names) != 1:
            return wanted
        return License(names[0], str(name) if name else None, str(link) if link else None)

    def completed(self, data: ModelCardData, datasets: tuple[str, ...]) -> str:
        """Gives the card with what its header lacks; what it has stays as it is.

        Args:
            data: all that is known of the model.
            datasets: that the user names beside it.

        Raises:
            UserError: the header names other datasets, or nothing can be added to it.
        """
        self._compare_datasets(datasets)
        known = data.to_dict()
        if "license" in self.header:
            known = {name: value for name, value in known.items() if "license" not in name}
        lacking = {name: value for name, value in known.items() if name not in self.header}
        return self._with(lacking) if lacking else self.text

    def _compare_datasets(self, datasets: tuple[str, ...]) -> None:
        found = self.header.get("datasets", [])
        own = found if isinstance(found, list) else [found]
        for name in datasets:
            if "/" not in name:
                _logger.warning("--dataset %s is no Hub id: name it in your README.md", name)
            elif "datasets" in self.header and name not in own:
                raise UserError(
                    f"dataset: found {name!r}, but the folder's README.md names {own}. Add it "
                    "there, or leave dataset out."
                )

    def _with(self, lacking: dict[str, Any]) -> str:
        """Writes further keys behind those of the header, or a header where there is none."""
        import yaml
        from huggingface_hub.utils import yaml_dump

        added = yaml_dump(lacking, sort_keys=False)
        match = _HEADER.match(self.text)
        if match is None:
            return f"---\n{added}---\n\n{self.text}"
        start, line_break, own, end = match.groups()
        whole = own + added.replace("\n", line_break)
        try:
            is_whole = yaml.safe_load(whole) == {**self.header, **lacking}
        except yaml.YAMLError:
            is_whole = False
        if not is_whole:
            raise UserError(
                "README.md: nothing can be added to its YAML header. Write it with one key a line: "
                f"it lacks {', '.join(lacking)}."
            )
        return f"{start}{whole}{end}{self.text[match.end() :]}"


def read_own_card(path: Path) -> OwnCard:
    """Reads a model card.

    Raises:
        UserError: it is no UTF-8 text, or its header is no YAML with keys.
    """
    import yaml

    try:
        text = path.read_bytes().decode("utf-8-sig")
        match = _HEADER.match(text)
        header = yaml.safe_load(match[3]) if match else {}
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        problem = str(error).splitlines()[0]
        raise UserError(
            f"{path} cannot be read: {problem}. Repair its YAML header, or take the file away to "
            "get a card written."
        ) from error
    if header is not None and not isinstance(header, dict):
        raise UserError(
            f"{path}: its YAML header, between the lines '---', has no keys. Repair it, or take "
            "the file away to get a card written."
        )
    return OwnCard(text, header or {})
