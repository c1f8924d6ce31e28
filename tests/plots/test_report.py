import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import browser
import pytest
from results_by_hand import better

from speaker_encoder.errors import UserError
from speaker_encoder.plots import plot_det, write_report
from speaker_encoder.plots.interpolation import plot_interpolation
from speaker_encoder.plots.page import escape, inline_image, json_block, make_page
from speaker_encoder.plots.tables import show_name, show_section, show_value
from speaker_encoder.plots.verification_report import choose_pictures
from speaker_encoder.training import TrainConfig
from speaker_encoder.training.report_page import write_run_report
from speaker_encoder.training.run_dir import RunDirectory

EVIL = "<script>window.hacked = 1</script>"
SYSTEM = {
    "name": "dvector",
    "weights_sha256": "49ab",
    "num_targets": 1120,
    "num_nontargets": 44_800,
    "eer": {"value": 0.0598, "interval": [0.0375, 0.0839], "threshold": 0.7099},
    "min_dcf": {
        "0.01": {"value": 0.7, "interval": [0.4621, 0.8], "threshold": 0.8},
        "0.05": {"value": 0.49375, "interval": [0.3191, 0.5939], "threshold": 0.7},
    },
    "act_dcf": None,
    "cllr": None,
    "bootstrap": {"confidence": 0.95, "num_draws": 200},
    "thresholds": [
        {"wanted_false_accept_rate": 0.01, "threshold": 0.7789, "false_accept_rate": 0.0098,
         "miss_rate": 0.3393}
    ],
    "breakdown": {
        "duration": [
            {"group": "2-4 s", "num_targets": 1119, "num_nontargets": 4480, "eer": 0.0599},
            {"group": "4-8 s", "num_targets": 1, "num_nontargets": 0, "eer": None},
        ]
    },
}  # fmt: skip
RESULTS = {
    "version": 1,
    "trials": {"source": "trials.txt", "num_trials": 5600},
    "systems": [SYSTEM, SYSTEM | {"name": EVIL}],
    "comparisons": [
        {"before": "dvector", "after": EVIL, "eer_difference": -0.012,
         "eer_difference_interval": [-0.02, -0.001], "verdict": "better"}
    ],
}  # fmt: skip


class Tables(HTMLParser):
    """The cells of a page's tables by row, and its headings."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.headings: list[str] = []
        self.tag = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes) -> None:
        self.tag = tag
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.tag in ("td", "th"):
            self.rows[-1][-1] += data
        elif self.tag in ("h2", "h3"):
            self.headings.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.tag = ""


def test_report_shows_the_figures_of_all_systems(tmp_path: Path) -> None:
    page = write_report(RESULTS, [], tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    tables = Tables(page)
    head = ["system", "EER", "minDCF 0.01", "minDCF 0.05", "targets", "nontargets"]
    values = ["5.98 % (3.75 to 8.39)", "0.700 (0.462 to 0.800)", "0.494 (0.319 to 0.594)"]
    assert tables.rows[:3] == [
        head, ["dvector", *values, "1120", "44,800"], [EVIL, *values, "1120", "44,800"],
    ]  # fmt: skip
    assert ["dvector", EVIL, "-1.20 points (-2.00 to -0.10)", "better"] in tables.rows
    assert ["dvector", "at most 1 % false accepts", "0.779", "0.98 %", "33.93 %"] in tables.rows
    assert ["group", "targets", "nontargets", "EER, dvector", f"EER, {EVIL}"] in tables.rows
    assert ["4-8 s", "1", "0", "–", "–"] in tables.rows
    assert "the interval that holds 95 % of 200 bootstrap draws" in page
    assert tables.headings == [
        "Error rates", "Comparisons", "Thresholds", "By duration", "Trials", "dvector", "bootstrap",
        EVIL, "bootstrap", "This report",
    ]  # fmt: skip


def test_results_of_any_shape_are_shown(tmp_path: Path) -> None:
    results = {
        "a": {"x": {"eer": 0.5, "ok": True}, "y": {"eer": 0.25, "ok": False}},
        "eer": 0.1, "eer_interval": [0.05, 0.2], "nothing": [], "many": list(range(30)),
        "deep": {"one": {"two": {"three": [{"k": "v"}]}}}, "systems": "none",
    }  # fmt: skip
    page = write_report(results, [], tmp_path / "report.html").read_text(encoding="utf-8")
    rows = Tables(page).rows
    assert ["EER", "10.00 % (5.00 to 20.00)"] in rows
    assert ["nothing", "none"] in rows
    assert ["x", "50.00 %", "yes"] in rows
    assert ["v"] in rows
    assert any(row[0] == "many" and row[1].endswith("18, 19 and 10 more") for row in rows)


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("eer", 0.05, "5.00 %"),
        ("sampling_rate", 16_000, "16,000"),
        ("threshold", 0.70985, "0.710"),
        ("threshold", 0.5, "0.500"),
        ("seconds", 2.5, "2.5"),
        ("tiny", 1e-9, "1e-09"),
        ("large", 12_345_678.0, "1.23e+07"),
        ("not finite", float("nan"), "nan"),
        ("zero", 0.0, "0"),
        ("mapping", {"num_a": 1, "b": "c"}, "a 1, b c"),
    ],
)
def test_values_as_text(key: str, value, shown: str) -> None:
    assert show_value(key, value) == shown


def test_keys_as_words() -> None:
    keys = ["eer", "min_dcf_difference", "num_speakers", "p_target", "Other <b>", "same_session"]
    names = ["EER", "minDCF difference", "speakers", "p_target", "Other <b>", "same session"]
    assert [show_name(key) for key in keys] == names


def test_long_tables_are_cut_and_say_so() -> None:
    shown = show_section([{"row": i} for i in range(700)])
    assert shown.count("<tr>") == 501
    assert "200 more rows" in shown


def test_pictures_lie_inside_once_and_sharp(tmp_path: Path) -> None:
    pictures = plot_det({"x": ([0.1, 0.9, 0.5], [0, 1, 0])}, tmp_path / "det.png")
    large = tmp_path / "large.svg"
    large.write_bytes(b"<svg/>" + b" " * 600_000)
    small = large.with_suffix(".png")
    small.write_bytes(pictures[0].read_bytes())
    for order in ([large, small], [small, large]):
        assert choose_pictures([*pictures, *order]) == [pictures[1], small]
    page = write_report({}, [*pictures, large, small], tmp_path / "r.html").read_text("utf-8")
    assert page.count("<img") == 2
    assert base64.b64encode(pictures[1].read_bytes()).decode() in page
    assert "http:" not in page and "https:" not in page
    with pytest.raises(UserError, match="Cannot read the picture"):
        write_report({}, [tmp_path / "gone.png"], tmp_path / "r.html")
    with pytest.raises(UserError, match="pictures of the kinds"):
        inline_image(tmp_path / "x.txt", "")


def test_the_policy_names_style_and_script_by_their_hash() -> None:
    page = make_page("t", "", style="b {}", script="let a = 1;")
    for tag, kind in (("style", "style-src"), ("script", "script-src")):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in page
    assert "default-src 'none'" in page
    assert "script-src 'none'" in make_page("t", "")


def test_text_cannot_become_markup() -> None:
    assert escape("<a href='x' & \"y\">") == "&lt;a href=&#x27;x&#x27; &amp; &quot;y&quot;&gt;"
    assert escape("caf\udce9") == "caf\\udce9"
    block = json_block("data", {"x": "</script><!--&"})
    assert block.count("<") == 2
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_block("data", float("nan"))


@pytest.mark.slow
def test_report_in_a_browser(driver, tmp_path: Path) -> None:
    pictures = plot_det({EVIL: ([0.1, 0.9, 0.5], [0, 1, 0])}, tmp_path / "det.png")
    path = write_report(RESULTS, pictures, tmp_path / "report.html")
    browser.open_page(driver, path)
    assert driver.execute_script("return document.images[0].naturalWidth") > 100
    assert driver.execute_script("return window.hacked") is None
    assert EVIL in driver.find_element("tag name", "table").text
    font = "return getComputedStyle(document.body).maxWidth"
    assert driver.execute_script(font) != "none"  # the style counts
    assert browser.complaints(driver) == []
    assert {url.split(":")[0] for url in browser.requested(driver)} <= {"file", "data"}


@pytest.mark.slow
def test_report_of_a_run_in_a_browser(driver, tmp_path: Path) -> None:
    config = TrainConfig(model_name="dvector", train_data_root="demo")
    results = better(model_name=EVIL)
    plot_interpolation(results.interpolation, tmp_path / "plots" / "interpolation.png")
    browser.open_page(driver, write_run_report(config, RunDirectory(tmp_path), results))
    assert driver.execute_script("return document.images[0].naturalWidth") > 100
    assert driver.execute_script("return window.hacked") is None
    assert EVIL in driver.find_element("tag name", "p").text
    assert "after (alpha 0.4 of step 100)" in driver.find_element("tag name", "table").text
    style = "return getComputedStyle(document.querySelector('code')).whiteSpace"
    assert driver.execute_script(style) == "nowrap"
    assert browser.complaints(driver) == []
    assert {url.split(":")[0] for url in browser.requested(driver)} <= {"file", "data"}
