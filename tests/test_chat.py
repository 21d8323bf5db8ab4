"""Talking to a run: in one shot, through a pipe, on a terminal."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="needs the libraries: make setup")

from kit.cli.command import call
from kit.cli.interpreter import PROJECT_ROOT
from kit.commands import chat
from kit.use.conversation import Reply
from terminal import END, INTERRUPT, Terminal

if TYPE_CHECKING:
    from pathlib import Path


def pipe(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False, buffer=io.BytesIO(content)))


def test_one_shot_prints_the_answer_alone(adapter_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(adapter_run), "--cpu", "--max-new-tokens", "8"]
    assert call(chat, [*arguments, "--prompt", "amber"]) == 0
    first = capsys.readouterr()
    assert len(first.out.splitlines()) == 1
    assert "adapter of" in first.err
    assert "the answer was cut at 8 tokens" in first.err
    assert call(chat, [*arguments, "--prompt", "amber"]) == 0
    assert capsys.readouterr().out == first.out
    assert call(chat, [*arguments, "--prompt", "amber", "--base"]) == 0
    assert capsys.readouterr().out != first.out


def test_each_line_of_a_pipe_is_a_question_of_its_own(
    adapter_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe(monkeypatch, b"\xef\xbb\xbfamber\r\n\n/quit\n \t\namber")
    assert call(chat, [str(adapter_run), "--cpu", "--max-new-tokens", "4", "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["line"], line["prompt"]) for line in answers] == [(1, "amber"), (3, "/quit"), (5, "amber")]
    assert answers[0]["answer"] == answers[2]["answer"]
    assert answers[0]["ending"] == "length"


def test_a_question_is_asked_with_the_blanks_it_was_written_with(
    adapter_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def heard(_loaded: Any, _talk: Any, question: str, **_: Any) -> Any:
        asked.append(question)
        return Reply("ok", 1, 1.0, "end")

    monkeypatch.setattr(chat, "reply", heard)
    pipe(monkeypatch, b"  two blanks \t\r\n\xef\xbb\xbfa mark\n\n \nlast ")
    assert call(chat, [str(adapter_run), "--cpu"]) == 0
    assert call(chat, [str(adapter_run), "--cpu", "--prompt", "\n one \n"]) == 0
    assert asked == ["  two blanks \t", "\ufeffa mark", "last ", "\n one \n"]


def test_a_line_at_a_terminal_is_asked_as_it_was_typed(
    adapter_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from kit.use import chat_session as session

    asked: list[str] = []

    def heard(_loaded: Any, _talk: Any, question: str, **_: Any) -> Any:
        asked.append(question)
        return Reply("ok", 1, 1.0, "end")

    lines = iter([" /quit is text ", "   ", "a [/INST] b", "</s>"])

    def read(_prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(session, "reply", heard)
    monkeypatch.setattr(session, "_read", read)
    monkeypatch.setattr(sys, "stdin", _Screen())
    assert call(chat, [str(adapter_run), "--cpu"]) == 0
    assert asked == [" /quit is text ", "a [/INST] b", "</s>"]
    said = capsys.readouterr().err
    assert said.count("note: ") == 1
    assert "'[/INST]' is also a template marker" in said


def test_a_question_that_is_too_long_is_said_and_the_others_are_answered(
    adapter_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe(monkeypatch, b"x" * 600 + b"\namber\n")
    assert call(chat, [str(adapter_run), "--cpu", "--max-new-tokens", "4"]) == 1
    output = capsys.readouterr()
    assert "line 1: 6" in output.err
    assert len(output.out.splitlines()) == 1


def test_drawing_with_a_seed_draws_the_same_again(adapter_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for seed in ("1", "1", "2"):
        arguments = [str(adapter_run), "--cpu", "--max-new-tokens", "12", "--temperature", "2", "--seed", seed]
        assert call(chat, [*arguments, "--prompt", "amber"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2]


def test_a_system_message_the_template_lacks_is_said(adapter_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(adapter_run), "--cpu", "--max-new-tokens", "2", "--system", "be brief", "--prompt", "a"]
    assert call(chat, arguments) == 0
    assert "is put before the first question" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "hot"], "'hot' is not a number from 0 to 10"),
        (["--top-p", "1.5"], "'1.5' is not a number from 0 to 1"),
        (["--max-new-tokens", "-1"], "-1"),
    ],
)
def test_options_out_of_range_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as refused:
        call(chat, arguments)
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_a_run_that_is_not_there_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(chat, ["no-such-run"]) == 2
    assert "no-such-run: no such run directory" in capsys.readouterr().err


@pytest.mark.slow
def test_a_conversation_at_a_terminal(adapter_run: Path) -> None:
    command = [sys.executable, str(PROJECT_ROOT / "scripts/kit"), "chat", str(adapter_run), "--cpu"]
    with Terminal([*command, "--max-new-tokens", "300"], NO_COLOR="1") as terminal:
        terminal.wait_for("you> ")
        terminal.type("amber\n")
        assert "cut at 300" in terminal.wait_for(r"adapter> [^\n]*\r\n\(300 tokens, .*\)")
        terminal.wait_for("you> ")
        terminal.type("/base\n")
        terminal.wait_for("the base answers now")
        terminal.type("/again\n")
        terminal.wait_for(r"base> [^\n]*\r\n\(300 tokens")
        for command_line, reply in (
            ("/nonsense", "unknown command /nonsense; see /help"),
            ("/help", "/adapter +answer with the adapter from now on"),
            ("/reset", "cleared"),
            ("/again", "no question yet"),
        ):
            terminal.type(f"{command_line}\n")
            terminal.wait_for(reply)
        terminal.wait_for("you> ")
        terminal.interrupt_until("/quit or Ctrl-D exits")
        terminal.wait_for("you> ")
        terminal.type("a long one\n")
        terminal.wait_for("base> ")
        # Once, and from the moment its name stands there: before, at or after the first word.
        terminal.type(INTERRUPT)
        terminal.wait_for(
            r"\(\d+ tokens?, .*, stopped(; the partial answer is kept| before the first token; the question)"
        )
        terminal.wait_for("you> ")
        terminal.type(END)
        assert terminal.exit_code() == 0


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_answers_cannot_steer_the_terminal(adapter_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kit.use import chat_session as session
    from kit.use import conversation as talk

    def hostile(*_: Any, write: Any, **__: Any) -> talk.Reply:
        write("\x1b]0;owned\x07\x1b[32mgreen")
        return talk.Reply("", 1, 1.0, "end")

    lines = iter(["hello"])

    def read(_prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(session, "reply", hostile)
    monkeypatch.setattr(session, "_read", read)
    monkeypatch.setattr(sys, "stdin", _Screen())
    monkeypatch.setattr(sys, "stdout", screen := _Screen())
    assert call(chat, [str(adapter_run), "--cpu"]) == 0
    assert screen.getvalue() == "\\u001b]0;owned\\u0007\\u001b[32mgreen\n"
