"""Self-contained HTML pages: everything inside one file, nothing from anywhere else."""

import base64
import hashlib
import html
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speaker_encoder.errors import UserError
from speaker_encoder.plots.figures import printable

IMAGE_TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}
STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 72rem; color: #1c1c1c; background: #fff;
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", "Noto Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; padding-bottom: .2rem;
  border-bottom: 1px solid #ddd; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; overflow-wrap: anywhere; }
p { margin: .4rem 0; }
.note { color: #666; font-size: .87rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .3rem 0 1rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #eee; overflow-wrap: anywhere; }
th { font-weight: 600; white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; overflow-wrap: normal; }
img { max-width: 100%; height: auto; }
figure { margin: 0 0 1.5rem; }
figcaption { color: #666; font-size: .87rem; }
"""


def escape(text: object) -> str:
    """A text as it may stand between tags and in quoted attributes.

    Args:
        text: anything; its `str` is shown, whatever it holds.

    Returns:
        The text with `& < > " '` as character references; no lone surrogates of file names.
    """
    return html.escape(printable(str(text)), quote=True)


def data_uri(content: bytes, media_type: str) -> str:
    """Bytes as an address that holds them.

    Args:
        content: of a file.
        media_type: such as image/png.

    Returns:
        A base64 data URI.
    """
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def inline_image(path: str | os.PathLike[str], description: str) -> str:
    """An `img` element that holds a picture.

    Args:
        path: a .png, .svg or .jpg file.
        description: read aloud in place of the picture.

    Returns:
        The element.

    Raises:
        UserError: the file cannot be read, or is of another kind.
    """
    path = Path(path)
    media_type = IMAGE_TYPES.get(path.suffix.lower())
    if media_type is None:
        known = ", ".join(IMAGE_TYPES)
        raise UserError(f"A page can hold pictures of the kinds {known}; found {path}.")
    try:
        source = data_uri(path.read_bytes(), media_type)
    except OSError as error:
        raise UserError(f"Cannot read the picture {path} ({error.strerror}).") from error
    return f'<img src="{source}" alt="{escape(description)}">'


def json_block(element_id: str, data: Any) -> str:
    """Data for a page's script, as a block that is no script itself.

    Args:
        element_id: of the element.
        data: what `json` writes; no NaN.

    Returns:
        A `script` element of type application/json; no text in it can end it early.
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{element_id}">{text}</script>'


def make_page(
    title: str, body: str, *, style: str = "", script: str = "", media: Sequence[str] = ()
) -> str:
    """A whole page with a policy under which a browser loads nothing from the network.

    The policy names the one style and the one script by their hash: text that came into the
    body as an element would not run even if it had not been escaped. A `style` attribute has no
    effect under it; use classes.

    Args:
        title: any text; it is the heading too.
        body: HTML; what comes from users must have gone through `escape`.
        style: CSS after the common one.
        script: JavaScript; empty for none.
        media: sources that audio may come from besides, such as "'self'"; data URIs always may.

    Returns:
        The page.
    """
    css = STYLE + style
    policy = [
        "default-src 'none'",
        f"style-src '{_hash(css)}'",
        f"script-src '{_hash(script)}'" if script else "script-src 'none'",
        "img-src data:",
        " ".join(["media-src data:", *media]),
        "base-uri 'none'",
        "form-action 'none'",
    ]
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{"; ".join(policy)}">',
        '<meta name="referrer" content="no-referrer">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>{css}</style>",
        "</head>",
        "<body>",
        f"<h1>{escape(title)}</h1>",
        body,
        *([f"<script>{script}</script>"] if script else []),
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def write_page(path: str | os.PathLike[str], page: str) -> Path:
    """Writes a page, complete or not at all.

    Args:
        path: the file; its folder is made.
        page: of `make_page`.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(page, encoding="utf-8", newline="\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
