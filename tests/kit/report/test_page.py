"""The page: whole, self-contained, and safe whatever the run's files hold."""

from __future__ import annotations

import html
import json
import math
import os
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from kit.report import after_run
from kit.report.write import write_report
from kit.run_directory.process import this_process
from written_run import RESOLVED, write_run

if TYPE_CHECKING:
    from pathlib import Path

    from kit.report.write import Written

LARGEST_PAGE = 1_500_000
EVIL = "<script>alert(1)</script>&\"'`$x$ \u202e\ud800 \\u2713"


def repr_short(value: object) -> str:
    return repr(value)[:12]


class Outline(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "action"}]


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The report of a run that went well."""
    return write_report(write_run(tmp_path_factory.mktemp("report") / "my-run", line={"memory_bytes": 2_000_000_000}))


def text_of(written: Written) -> str:
    return written.page.read_text(encoding="utf-8")


def page(folder: Path) -> str:
    return write_report(folder).page.read_text(encoding="utf-8")


def without_tags(text: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", text))


def test_it_shows_what_the_metrics_and_the_receipt_say(ordinary: Written) -> None:
    text = without_tags(text_of(ordinary))
    for said in ("my-run", "0.589", "0.7", "1.2 GB", "2,000", "2.10.0", "1234567890abcdef", "Some CPU", "line 1"):
        assert said in text, said


def test_it_needs_nothing_beside_it(ordinary: Written) -> None:
    outline = Outline(text_of(ordinary))
    assert all(address.startswith("#") for address in outline.addresses)
    assert not {"script", "link", "img", "iframe", "object"} & set(outline.tags)
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.tags.count("title") == 1 + outline.tags.count("svg")  # every chart has a name


def test_the_charts_take_the_pages_colours_and_keep_their_text(ordinary: Written) -> None:
    text = text_of(ordinary)
    charts = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "var(--train)" in charts
    assert not set(re.findall(r"#[0-9a-f]{6}", charts)) - {"#000000"}
    assert ">optimizer step</text>" in charts


def test_markup_in_a_runs_files_stays_text(tmp_path: Path) -> None:
    config = json.loads(json.dumps(RESOLVED.settings.as_mapping()))
    config["data"]["train_file"] = config["training"]["run_name"] = EVIL
    folder = write_run(
        tmp_path / "run", run_name=EVIL, state=EVIL, config=config, packages={EVIL: EVIL}, error=EVIL, argv=[EVIL],
        data=[{"path": EVIL, "sha256": EVIL}], machine={"cpu_model": EVIL}, platform=EVIL, origins={"lora.r": EVIL},
        predicted={"peak_memory_bytes": 1e9, "seconds": [1, 10], "terms": {EVIL: 1e9}},
    )  # fmt: skip
    (folder / "evaluation.json").write_text(
        json.dumps({"samples": [dict.fromkeys(("prompt", "base", "adapter"), EVIL)]})
    )
    text = page(folder)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("state", "done"),
    [("started", 0), ("training", 1), ("finished", 1), ("finished", 3), ("interrupted", 2), ("failed", 0)],
)
def test_a_run_in_any_state_has_a_page(tmp_path: Path, state: str, done: int) -> None:
    facts: dict[str, Any] = {} if state == "finished" else {"seconds": None, "peak_memory_bytes": None}
    folder = write_run(tmp_path / "run", done=done, evaluations=[], state=state, process=this_process(), **facts)
    assert state in page(folder)


def test_a_run_of_which_only_the_receipt_is_left_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    text = page(tmp_path)
    assert "No loss has been logged" in text
    assert "The receipt holds no configuration" in text


@pytest.mark.slow
@pytest.mark.parametrize("value", [None, True, "text", [1, [2]], {"a": {"b": 1}}, 10**400, math.nan], ids=repr_short)
def test_a_receipt_that_holds_other_things_has_a_page(tmp_path: Path, value: object) -> None:
    keys = (
        "config",
        "origins",
        "machine",
        "packages",
        "locks",
        "data",
        "predicted",
        "argv",
        "steps",
        "seconds",
        "tokens",
    )
    more = ("started_at", "ended_at", "platform", "peak_memory_bytes", "git_revision", "git_dirty", "process")
    line = dict.fromkeys(("epoch", "learning_rate", "grad_norm", "tokens", "seconds", "memory_bytes"), value)
    folder = write_run(tmp_path / "run", line=line, **dict.fromkeys((*keys, *more), value))
    for name in ("demo.json", "evaluation.json"):
        (folder / name).write_text(json.dumps({"samples": value, "exact_match_after": value, "adapter": value}))
    assert "</html>" in page(folder)


def test_losses_that_are_no_numbers_are_marked(tmp_path: Path) -> None:
    text = page(
        write_run(tmp_path / "run", loss=lambda step: math.nan if step > 50 else 1.0, evaluations=[(60, math.nan)])
    )
    assert ">NaN or infinite</text>" in text
    assert "the loss is NaN or infinite from step 51" in text
    assert '<span class="value">NaN</span>' in text


@pytest.mark.slow
def test_200_000_steps_stay_a_small_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", done=0)
    line = '{{"step": {0}, "epoch": 1.5, "loss": 1.{0}, "grad_norm": 2.{0}, "tokens": {0}, "memory_bytes": {0}}}\n'
    with (folder / "metrics.jsonl").open("w") as file:
        file.writelines(line.format(step) for step in range(1, 200_001))
        file.writelines(f'{{"step": {step}, "eval_loss": 1.{step}}}\n' for step in range(100, 200_001, 100))
    assert len(page(folder).encode()) < LARGEST_PAGE


def test_predicted_and_measured_stand_side_by_side(tmp_path: Path) -> None:
    predicted = {
        "peak_memory_bytes": 1_500_000_000,
        "allocated_bytes": 1_200_000_000,
        "seconds": [15.0, 45.0],
        "terms": {"base in 4 bits": 1_000_000_000, "adapter": 500_000_000},
    }
    text = without_tags(page(write_run(tmp_path / "run", predicted=predicted)))
    assert "base in 4 bits" in text
    assert "1.20" in text
    assert "1.50" not in text
    assert "The receipt holds no prediction" not in text
    assert "The receipt holds no prediction" in page(write_run(tmp_path / "other"))


def test_samples_are_shown_with_what_is_right(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    sample = {"prompt": "Write amber backwards.", "expected": "rebma", "base": "", "adapter": "rebma "}
    (folder / "demo.json").write_text(json.dumps({"samples": [sample], "questions": 1}))
    text = without_tags(page(folder))
    assert re.search(r"Write amber backwards\.\s+rebma\s+\(nothing\)\s+✗ differs\s+rebma\s+✓ same", text)


def test_an_evaluations_conversations_are_shown_by_their_last_turn(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", sessions=[{"from_step": 0}, {"from_step": 40}])
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "what now?"}]
    sides = {"base": {"loss": 2.125, "exact_match": 0.0}, "adapter": {"loss": 0.5, "exact_match": 1.0}}
    sample = {"messages": messages, "expected": "this", "base": "that", "adapter": "this"}
    (folder / "evaluation.json").write_text(json.dumps({**sides, "questions": 1, "samples": [sample]}))
    text = without_tags(page(folder))
    assert re.search(r"what now\?\s+this\s+that\s+✗ differs\s+this\s+✓ same", text)
    assert "Loss 2.12 before, 0.5 after" in text
    assert "be brief" not in text
    assert "2, resumed from step 40" in text


def test_changed_values_are_marked_with_their_default(ordinary: Written) -> None:
    text = text_of(ordinary)
    row = re.search(r'<tr class="changed"><th scope="row">max_steps</th>.*?</tr>', text)
    assert row
    assert "default -1" in row.group()
    assert re.search(r'<tr><th scope="row">seed</th>', text)


def test_the_picture_is_a_png_of_a_size_for_a_chat(ordinary: Written) -> None:
    picture = ordinary.picture.read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(picture[16:20]), int.from_bytes(picture[20:24])) == (1200, 760)


def test_after_a_run_nothing_is_raised_and_a_failure_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    after_run(write_run(tmp_path / "run", done=0))
    assert capsys.readouterr().err == f"report: {tmp_path}/run/report.html\n"
    (tmp_path / "run/run.json").write_text("[]")
    after_run(tmp_path / "run")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the report could not be written (RunError: ")
    assert line.endswith(f"make report RUN={tmp_path}/run")
    after_run(tmp_path / "never begun")
    assert capsys.readouterr().err == ""


def test_a_persons_matplotlibrc_changes_nothing(ordinary: Written) -> None:
    import matplotlib as mpl

    before = re.findall(r"<svg.*?</svg>", text_of(ordinary), re.DOTALL)
    with mpl.rc_context({"axes.facecolor": "red", "font.size": 30, "axes.grid": True}):
        assert re.findall(r"<svg.*?</svg>", page(ordinary.page.parent), re.DOTALL) == before


def test_a_report_holds_no_token_although_the_receipt_does(tmp_path: Path) -> None:
    token = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz01234567"
    folder = write_run(tmp_path / "run", state="failed", error=f"401 for {token}", argv=["a.yaml", f"--token={token}"])
    text = write_report(folder).page.read_text(encoding="utf-8")
    assert token not in text
    assert "[redacted]" in text


def test_a_report_is_never_written_through_a_link(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in ("report.html", f".report.html.{os.getpid()}", f".report.png.{os.getpid()}"):
        (folder / name).symlink_to(precious)
    written = write_report(folder)
    assert precious.read_text() == "mine"
    assert not written.page.is_symlink()
