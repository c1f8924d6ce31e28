"""The page itself, in Gradio: nothing leaves the machine, and no recording stays on it."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import tempfile
from functools import cache, wraps
from typing import TYPE_CHECKING, Any

from speaker_encoder.demo.scoring import Enrolled, enrol, identify, score_recordings
from speaker_encoder.demo.spectrogram import draw_spectrogram
from speaker_encoder.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    import gradio

    from speaker_encoder.modeling import SpeakerEncoder
    from speaker_encoder.verification.thresholds import Threshold

HOST = "127.0.0.1"
UNKNOWN_THRESHOLD = 0.5
_KEPT_SECONDS = 3600
"""Recordings and pictures of a visitor are deleted after this time, and when the page ends."""
_MOST_BYTES = "50mb"
_FONTS = ["system-ui", "sans-serif"]
_ASKED_OF_TWO = "(first, second) => [first, second, `${first?.url} ${second?.url}`]"
_ASKED_OF_ALL = """(enrolled, unknown, people) =>
  [enrolled, unknown, people, `${people} ${unknown?.url}`]"""
_VERDICT = """(answer, first, second, threshold) => {
  if (!first || !second) return "Give two recordings.";
  if (!answer || answer[0] !== `${first.url} ${second.url}`) return "Press Compare.";
  const isSame = answer[1] >= threshold;
  const verdict = isSame ? "The same speaker" : "Different speakers";
  const sign = isSame ? "at or above" : "below";
  const score = `Score **${answer[1].toFixed(4)}**`;
  return `## ${verdict}\\n${score}, ${sign} the threshold ${threshold.toFixed(3)}.`;
}"""
_IDENTITY = """(answer, people, unknown, threshold) => {
  if (!answer || answer[0] !== `${people} ${unknown?.url}`) return "";
  const [, name, best, table] = answer;
  return `## ${best >= threshold ? name : "None of the enrolled speakers"}\\n\\n${table}`;
}"""
"""An answer begins with what was asked about. The browser shows it where that is still on the page:
one that comes late, to a recording that is gone, is never seen."""


def build_page(
    encoder: SpeakerEncoder, name: str, threshold: Threshold | None = None
) -> gradio.Blocks:
    """Gives the page, ready to be launched.

    Args:
        encoder: In eval mode.
        name: What the page calls it.
        threshold: Where the slider starts; None: no threshold is known.

    Raises:
        UserError: Gradio is missing, or the encoder's head is untrained.
    """
    gr = _gradio()
    encoder.refuse_untrained_head()
    start = UNKNOWN_THRESHOLD if threshold is None else threshold.value
    source = "no threshold is known for this encoder: measure one" if threshold is None else (
        f"{start:.3f} is {threshold.source}"
    )  # fmt: skip
    with gr.Blocks(
        title=f"speaker-encoder: {name}",
        analytics_enabled=False,
        delete_cache=(_KEPT_SECONDS, _KEPT_SECONDS),
    ) as page:
        gr.Markdown(
            f"# Who is speaking?\n`{name}`. The score of two recordings is the cosine of their "
            "embeddings. No threshold fits every microphone and language."
        )
        slider = gr.Slider(
            -1.0, 1.0, value=start, step=0.005, label="Threshold", info=source,
            elem_id="threshold", buttons=[],
        )  # fmt: skip
        with gr.Tab("Same speaker?"):
            _verification(gr, encoder, slider)
        with gr.Tab("Who is it?"):
            _identification(gr, encoder, slider)
    return page


def serve(page: gradio.Blocks, port: int | None = None) -> str:
    """Shows the page on this machine alone; it ends with the process or with ``page.close()``.

    Args:
        page: Of ``build_page``.
        port: Of 127.0.0.1; None: the first free one from 7860 on.

    Returns:
        The address.

    Raises:
        UserError: the port is taken.
    """
    gr = _gradio()
    try:
        _, address, _ = page.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            quiet=True,
            ssr_mode=False,
            footer_links=[],
            max_file_size=_MOST_BYTES,
            theme=gr.themes.Default(font=_FONTS, font_mono=["monospace"]),
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise UserError(
            f"The page cannot be served on {HOST}: {error}. Give another --port."
        ) from error
    return address


def refuse_missing_gradio() -> None:
    """Checks that the page can be made, without the seconds that an import takes.

    Raises:
        UserError: Gradio is not installed.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError(
            "The page needs gradio, which is not installed. Install it: "
            "pip install 'speaker-encoder[demo]'"
        )


def _gradio() -> Any:
    """Gives Gradio, told to report nothing to its makers."""
    refuse_missing_gradio()
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if "GRADIO_TEMP_DIR" not in os.environ:
        os.environ["GRADIO_TEMP_DIR"] = _upload_dir()
    import gradio

    return gradio


@cache
def _upload_dir() -> str:
    """What visitors upload lies in a folder that goes when the process does."""
    folder = tempfile.mkdtemp(prefix="speaker_encoder_demo_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _verification(gr: Any, encoder: SpeakerEncoder, slider: Any) -> None:
    """The half of the page that compares two recordings."""
    asked, answer = gr.Textbox(visible=False), gr.JSON(visible=False)  # in the browser
    with gr.Row():
        recordings = [
            _recording(gr, f"Recording {number}", f"recording{number}") for number in (1, 2)
        ]
    button = gr.Button("Compare", variant="primary", elem_id="compare")
    verdict = gr.Markdown("Give two recordings.", elem_id="verdict")
    with gr.Row():
        pictures = [
            gr.Plot(show_label=False, format="png", elem_id=f"spectrogram{number}")
            for number in (1, 2)
        ]

    def draw(number: int) -> Callable[[str | None], Any]:
        return _told(
            lambda path: (
                path and draw_spectrogram(path, encoder.sampling_rate, f"Recording {number}")
            )
        )

    def compare(first: str | None, second: str | None, asked: str) -> list[Any]:
        if not first or not second:
            raise UserError("Give two recordings: record or upload both.")
        return [asked, score_recordings(encoder, first, second)]

    decide = {
        "fn": None, "inputs": [answer, *recordings, slider], "outputs": verdict, "js": _VERDICT,
    }  # fmt: skip
    for number, (recording, picture) in enumerate(zip(recordings, pictures, strict=True), 1):
        recording.change(draw(number), recording, picture, api_visibility="private")
        recording.change(**decide)
    button.click(
        _told(compare), [*recordings, asked], answer, js=_ASKED_OF_TWO,
        show_progress_on=verdict, api_visibility="private",
    ).success(**decide)  # fmt: skip
    slider.change(**decide)


def _identification(gr: Any, encoder: SpeakerEncoder, slider: Any) -> None:
    """The half of the page that enrols speakers and says who of them an utterance is of."""
    enrolled_state = gr.State({}, time_to_live=_KEPT_SECONDS)  # a visitor's own
    asked, found = gr.Textbox(visible=False), gr.JSON(visible=False)  # in the browser
    with gr.Row():
        with gr.Column():
            name = gr.Textbox(label="Speaker", max_length=60, elem_id="speaker_name")
            sample = _recording(gr, "Recording of this speaker", "enrolment")
            add = gr.Button("Enrol", variant="primary", elem_id="enrol")
            clear = gr.Button("Forget all speakers", elem_id="forget")
            people = gr.Markdown(describe_enrolled({}), elem_id="enrolled")
        with gr.Column():
            unknown = _recording(gr, "Who is this?", "unknown")
            ask = gr.Button("Identify", variant="primary", elem_id="identify")
            answer = gr.Markdown(elem_id="identity")

    def add_speaker(enrolled: Enrolled, name: str, path: str | None) -> tuple[Any, str, None]:
        if not path:
            raise UserError("Give a recording of the speaker.")
        everyone = enrol(encoder, enrolled, name, path)
        return everyone, describe_enrolled(everyone), None

    def find(enrolled: Enrolled, path: str | None, people: str, asked: str) -> list[Any]:
        if not path:
            raise UserError("Give a recording of the speaker to be identified.")
        return [asked, *describe_identity(identify(encoder, enrolled, path))]

    decide = {
        "fn": None, "inputs": [found, people, unknown, slider], "outputs": answer, "js": _IDENTITY,
    }  # fmt: skip
    in_turn = {"concurrency_id": "enrolment", "api_visibility": "private"}
    add.click(
        _told(add_speaker), [enrolled_state, name, sample], [enrolled_state, people, sample],
        **in_turn,
    ).success(**decide)  # fmt: skip
    clear.click(
        lambda: ({}, describe_enrolled({})), None, [enrolled_state, people], **in_turn
    ).success(**decide)
    ask.click(
        _told(find), [enrolled_state, unknown, people, asked], found, js=_ASKED_OF_ALL,
        show_progress_on=answer, api_visibility="private",
    ).success(**decide)  # fmt: skip
    unknown.change(**decide)
    slider.change(**decide)


def describe_enrolled(enrolled: Enrolled) -> str:
    """Lists the enrolled speakers in Markdown."""
    if not enrolled:
        return "Nobody is enrolled."
    rows = [f"- {_plain(name)}: {one.num_utterances}" for name, one in enrolled.items()]
    return "\n".join(["Enrolled, and the recordings of each:", "", *rows])


def describe_identity(scores: list[tuple[str, float]]) -> tuple[str, float, str]:
    """Gives the nearest speaker in Markdown, the score, and a table of every speaker's."""
    name, best = scores[0]
    rows = [f"| {_plain(name)} | {score:.4f} |" for name, score in scores]
    return _plain(name), best, "\n".join(["| speaker | score |", "|---|---|", *rows])


def _plain(name: str) -> str:
    """A name that a visitor gave, with nothing in it that Markdown or HTML would act on."""
    return "".join(
        character if character.isalnum() or character in " _-'." else f"&#{ord(character)};"
        for character in name
    ).replace("_", "&#95;")


def _recording(gr: Any, label: str, elem_id: str) -> Any:
    return gr.Audio(
        sources=["upload", "microphone"], type="filepath", label=label, elem_id=elem_id, buttons=[]
    )


def _told(work: Callable[..., Any]) -> Callable[..., Any]:
    """Shows what a visitor must change on the page."""
    gr = _gradio()

    @wraps(work)
    def told(*arguments: Any) -> Any:
        try:
            return work(*arguments)
        except UserError as error:
            said = str(error)
            for path in filter(os.path.isabs, (a for a in arguments if isinstance(a, str))):
                said = said.replace(path, os.path.basename(path))  # not where it lies here
            raise gr.Error(said, print_exception=False) from error

    return told
