"""No text from a file, a model or a row has a terminal do anything, and what the kit writes itself gets through."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.cli import console, findings, redaction
from kit.cli.command import command_parser
from kit.cli.interpreter import PROJECT_ROOT
from kit.cli.screen import code, one_line, passing, visible

# Clear, reset, ask, clipboard, link, title, C1, conceal, colour, back, return, delete, direction, tag, separator, half.
ORDERS = [
    "\x1b[2J\x1b[H", "\x1bc", "\x1b[6n", "\x1b]52;c;ZXZpbA==\x07", "\x1b]8;;http://x\x1b\\", "\x1bP+q\x1b\\",
    "\x9b2J", "\x9d0;t\x9c", "\x1b[8m", "\x1b[1;8m", "\x1b[38;5;0m", "\x1b(0", "\b\b", "a\rb", "\x7f", "\x0b\x0c",
    "\u202eab", "\u2066", "\u200f", "\U000e0041", "\u2028", "\u2029", "\x85", "\ud800", "\udc9b", "\x1b",
]  # fmt: skip
HARMLESS = "é 🦙 猫 👩\u200d🚀 क\u094d\u200dष ភាសា\u200bខ្មែរ נכון ½ \u00a0 e\u0301"


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("order", ORDERS)
def test_an_order_to_a_terminal_is_written_out(order: str) -> None:
    text = f"a{order}b"
    for shown in (visible(text), one_line(text), passing(text), console.paint(text, stream=io.StringIO())):
        assert not any(unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for letter in shown)


def test_letters_of_every_kind_stay_and_only_lines_keep_their_breaks() -> None:
    assert visible(f"{HARMLESS}\n\tb") == f"{HARMLESS}\n\tb"
    assert one_line(HARMLESS) == HARMLESS
    assert one_line("a\n     ok  b\tc") == r"a\n     ok  b\tc"
    assert code("a`\n**forged**") == r"a'\n**forged**"


@given(st.text(max_size=40))
def test_what_was_written_out_stays_as_it_is_and_means_the_same_in_json(text: str) -> None:
    assert visible(visible(text)) == visible(text)
    written = json.dumps({"a": text}, ensure_ascii=False)
    assert json.loads(visible(written)) == {"a": text}


def test_what_the_kit_and_its_bars_write_themselves_passes() -> None:
    painted = "\x1b[31mred\x1b[0m \x1b[32;1mgreen\x1b[0m \x1b[2mdim\x1b[0m"
    assert passing(painted) == painted
    assert passing("\r 50%|█████     | 1/2") == "\r 50%|█████     | 1/2"
    live = "\r\x1b[2K\x1b[1A\x1b[2K\x1b[?25l\x1b[38;5;237m━\x1b[0m\x1b[?25h"
    assert passing(live, redraws=True) == live
    assert passing(live) == live.replace("\x1b[0m", "@").replace("\x1b", r"\u001b").replace("@", "\x1b[0m")


def test_text_in_a_finding_a_word_or_an_error_begins_no_line_and_has_no_colour(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    forged = "\n\x1b[32m     ok\x1b[0m  all is well"
    findings.render([findings.error("a.b", f"bad{forged}", f"mend{forged}", f"place{forged}")], sys.stderr)
    console.say(f"said{forged}", "bold")
    console.fail(f"failed{forged}", f"mend{forged}")
    console.fail(forged)
    with pytest.raises(SystemExit):
        command_parser("x", "x.py").parse_args([f"--y{forged}"])
    shown = capsys.readouterr().err
    assert "\x1b[32m" not in shown
    assert not [line for line in shown.splitlines() if line.strip().startswith(("ok", "all"))]


def test_talk_and_a_terminals_results_are_guarded_and_a_programs_results_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = []
    for stdout in (_Screen(), io.StringIO()):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stdout)
            patch.setattr(sys, "stderr", talk := io.StringIO())
            redaction.guard_output()
            print("\x1b[2J\x1b[32mx")
            print("\x1b[2J", file=sys.stderr)
        shown += [stdout.getvalue(), talk.getvalue()]
    assert shown == ["\\u001b[2J\x1b[32mx\n", "\\u001b[2J\n", "\x1b[2J\x1b[32mx\n", "\\u001b[2J\n"]


def test_only_while_something_is_redrawn_the_cursor_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", screen := _Screen())
        redaction.guard_output()
        with redaction.redrawing(sys.stdout):
            print("\x1b[1A\x1b[2K\x1b[2J", end="")
        print("\x1b[1A", end="")
    assert screen.getvalue() == "\x1b[1A\x1b[2K\\u001b[2J\\u001b[1A"


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({"PYTHONIOENCODING": "ascii"}, b"\\u2192 \\udcff\n"),
        ({"LC_ALL": "C", "PYTHONUTF8": "1"}, "→ \\udcff\n".encode()),
    ],
)
def test_what_a_streams_encoding_lacks_ends_no_command_and_no_json(variables: dict[str, str], shown: bytes) -> None:
    """In a C locale Python writes such a byte of a name as it is: what --json printed was no JSON."""
    program = "from kit.cli.redaction import guard_output; guard_output(); print('→ \\udcff')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT / "scripts"), **variables},
    )
    assert (done.returncode, done.stdout) == (0, shown)
