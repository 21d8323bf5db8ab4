"""The conversation at the terminal: questions, commands and remarks."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from kit.cli.console import paint, say, show_answer
from kit.use.conversation import Conversation, PromptError, Reply, Sampling, reply
from kit.use.interrupts import Interrupts

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.use.loading import Loaded

COMMANDS = {
    "/base": "answer with the base from now on",
    "/adapter": "answer with the adapter from now on",
    "/again": "repeat the last question",
    "/reset": "clear the conversation, keep the system message",
    "/help": "show this",
    "/quit": "exit, as Ctrl-D does; Ctrl-C stops an answer",
}


class ChatSession:
    """A conversation with a model at a terminal."""

    def __init__(self, loaded: Loaded, sampling: Sampling, system: str, *, adapter: bool) -> None:
        """Begin a conversation with the adapter, or with the base."""
        self.loaded, self.sampling, self.adapter = loaded, sampling, adapter
        self.conversation = Conversation(loaded.tokenizer, loaded.choice.context_length, system)
        self._was_told_of_length = False
        self._interrupts = Interrupts()

    @property
    def active_model(self) -> str:
        """Who answers."""
        return "adapter" if self.adapter else "base"

    def run(self) -> int:
        """Read and answer until the end of input; return the exit code."""
        _allow_editing()
        say("type a question; /help lists the commands", "dim")
        with self._interrupts:
            return self._converse()

    def _converse(self) -> int:
        while True:
            try:
                with self._interrupts.listening():
                    line = _read("you> ")
            except EOFError:
                say()
                return 0
            except KeyboardInterrupt:
                say("\n/quit or Ctrl-D exits", "dim")
                continue
            except UnicodeDecodeError:
                say("not UTF-8; ignored", "yellow")
                continue
            if line.startswith("/"):
                if not self._run_command(line.strip()):
                    return 0
            elif line.strip():
                self.ask(line)

    def ask(self, question: str) -> None:
        """Answer a question on stdout, with remarks on stderr."""
        if found := self.loaded.tokenizer.markers_pattern.search(question):
            say(f"note: {found[0]!r} is also a template marker; the model cannot tell them apart", "yellow")
        self._say_speaker()
        try:
            answer = reply(
                self.loaded,
                self.conversation,
                question,
                sampling=self.sampling,
                write=show_answer,
                adapter=self.adapter,
                listening=self._interrupts.listening,
            )
        except PromptError as exc:
            say(str(exc), "yellow")
            return
        print(flush=True)
        self._remark(answer)

    def _say_speaker(self) -> None:
        label = paint(f"{self.active_model}>", "green" if self.adapter else "blue", stream=sys.stderr)
        print(label, end=" ", file=sys.stderr, flush=True)

    def _remark(self, answer: Reply) -> None:
        rate = f"{answer.tokens / answer.seconds:,.0f} tokens/s" if answer.seconds else ""
        endings = {
            "end": "",
            "length": f", cut at {answer.tokens:,}; --max-new-tokens raises the limit",
            "stopped": ", stopped; the partial answer is kept"
            if answer.text
            else ", stopped before the first token; the question is dropped",
        }
        count = "1 token" if answer.tokens == 1 else f"{answer.tokens:,} tokens"
        say(f"({count}, {rate}{endings[answer.ending]})", "dim")
        if answer.forgotten:
            say(
                f"the conversation no longer fits into {self.loaded.choice.context_length:,} tokens: "
                f"its oldest {answer.forgotten} turns were dropped",
                "yellow",
            )
        trained = self.loaded.choice.settings.training.max_seq_length
        if not self._was_told_of_length and answer.length_so_far > trained:
            self._was_told_of_length = True
            say(f"the conversation now exceeds the {trained:,} tokens the adapter was trained on", "dim")

    def _run_command(self, command: str) -> bool:
        """Carry out a command; False where it ends the conversation."""
        if command == "/quit":
            return False
        actions: dict[str, Callable[[], None]] = {
            "/base": lambda: self._switch(adapter=False),
            "/adapter": lambda: self._switch(adapter=True),
            "/again": self._again,
            "/reset": self._reset,
            "/help": _help,
        }
        if command in actions:
            actions[command]()
        else:
            say(
                f"unknown command {command.split(maxsplit=1)[0]}; see /help. Begin with a space to send it as text",
                "yellow",
            )
        return True

    def _switch(self, *, adapter: bool) -> None:
        self.adapter = adapter
        say(f"the {self.active_model} answers now; /again repeats the last question", "dim")

    def _again(self) -> None:
        question = self.conversation.take_back()
        if question is None:
            say("no question yet", "yellow")
        else:
            self.ask(question)

    def _reset(self) -> None:
        self.conversation.reset()
        say("cleared", "dim")


def _help() -> None:
    width = max(map(len, COMMANDS))
    say("\n".join(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()), lines=True)


def _allow_editing() -> None:
    """Arrow keys and a history for this conversation, where Python was built with them; nothing is kept on disk."""
    with contextlib.suppress(ImportError):
        import readline

        readline.set_auto_history(True)


def _read(prompt: str) -> str:
    if sys.stdout.isatty():
        return input(prompt)
    # Otherwise the prompt would stand among the answers.
    print(prompt, end="", file=sys.stderr, flush=True)
    return input()
