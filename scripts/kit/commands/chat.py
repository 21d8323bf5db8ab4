"""Chat with a run's base + adapter; answers stream token by token.

Run as:
    python scripts/kit chat                                       the newest run      (or: make chat)
    python scripts/kit chat demo --prompt "Write the word lemon backwards."            one answer
    python scripts/kit chat demo < questions.txt                  one question per line; only answers on stdout

In a conversation /base and /adapter switch who answers, /again repeats the last question, /reset clears the
conversation, Ctrl-C stops an answer, Ctrl-D exits. From a pipe each line is a separate conversation, never a command.
Decoding is greedy, so the same question gets the same answer; --temperature 0.7 samples instead.
Exit codes: 0 ended, 1 a question could not be asked or out of memory, 2 wrong use, 130 stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator

from kit.cli.command import number_within
from kit.cli.console import say, show_answer
from kit.cli.redaction import discard_output
from kit.stacks.stack import installed_stack
from kit.use.chat_session import ChatSession
from kit.use.conversation import Conversation, PromptError, Sampling, reply
from kit.use.endings import carry_out
from kit.use.loading import Loaded, add_run_arguments, choose, load


def run(options: argparse.Namespace) -> int:
    def work() -> int:
        try:
            return _chat(options)
        except BrokenPipeError:
            # The reader has seen enough; Python would complain once more while closing stdout.
            discard_output(sys.stdout)
            return 0

    fix = "close other programs that use the memory, or lower --max-new-tokens"
    return carry_out(work, stopped="stopped", when_memory_runs_out=fix)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument("--prompt", metavar="TEXT", help="answer this and exit")
    parser.add_argument("--system", default="", metavar="TEXT", help="a system message")
    parser.add_argument("--base", action="store_true", help="start without the adapter")
    parser.add_argument("--json", action="store_true", help="with --prompt or a pipe: one JSON object per line")
    sampling = parser.add_argument_group("sampling")
    share, factor, whole = number_within(0, 1, float), number_within(0.1, 10, float), number_within(0)
    heat = number_within(0, 10, float)
    sampling.add_argument("--temperature", type=heat, default=0.0, metavar="T", help="0: greedy (default)")
    sampling.add_argument("--top-p", type=share, default=0.95, metavar="P", help="nucleus sampling (0.95)")
    sampling.add_argument("--top-k", type=whole, default=0, metavar="K", help="0: all tokens (default)")
    sampling.add_argument("--repetition-penalty", type=factor, default=1.0, metavar="R", help="1.0: none (default)")
    sampling.add_argument("--max-new-tokens", type=whole, default=512, metavar="N", help="tokens at most (512)")
    sampling.add_argument("--seed", type=whole, metavar="N", help="make sampling reproducible")


def _chat(options: argparse.Namespace) -> int:
    choice = choose(options, installed_stack())
    who = "base" if options.base else "adapter"
    say(
        f"{choice.run.name}: {who} of {choice.adapter} on {choice.base_name} in {choice.how}, {choice.platform}", "bold"
    )
    for remark in choice.remarks:
        say(f"note: {remark}", "yellow")
    if options.system and choice.tokenizer.merges_system:
        say("note: the base's template has no system message; it is put before the first question", "yellow")
    sampling = Sampling(
        options.temperature,
        options.top_p,
        options.top_k,
        options.repetition_penalty,
        max(1, options.max_new_tokens),
        options.seed,
    )
    loaded = load(choice)
    if options.prompt is not None:
        return _answer_each(loaded, sampling, options, [options.prompt])
    if sys.stdin.isatty():
        return ChatSession(loaded, sampling, options.system, adapter=not options.base).run()
    return _answer_each(loaded, sampling, options, _lines(sys.stdin.buffer))


def _lines(stream: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines of a pipe as they were written, but for their own ends and the mark some editors put in front."""
    for number, raw in enumerate(stream):
        text = raw.decode("utf-8-sig" if number == 0 else "utf-8", errors="replace")
        yield text.removesuffix("\n").removesuffix("\r")


def _answer_each(loaded: Loaded, sampling: Sampling, options: argparse.Namespace, questions: Iterable[str]) -> int:
    """Answer each as a conversation of its own; report what cannot be asked, and fail at the end."""
    failed = False
    for number, question in enumerate(questions, start=1):
        if not question.strip():
            continue
        conversation = Conversation(loaded.tokenizer, loaded.choice.context_length, options.system)
        write = (lambda _text: None) if options.json else show_answer
        try:
            answer = reply(loaded, conversation, question, sampling=sampling, write=write, adapter=not options.base)
        except PromptError as exc:
            say(f"line {number}: {exc}", "red")
            failed = True
            continue
        if answer.ending == "stopped":
            raise KeyboardInterrupt
        if options.json:
            shown = {"line": number, "prompt": question, "answer": answer.text, "ending": answer.ending}
            print(json.dumps({**shown, "tokens": answer.tokens}, ensure_ascii=False), flush=True)
        else:
            print(flush=True)
            if answer.ending == "length":
                say(f"line {number}: the answer was cut at {answer.tokens:,} tokens (--max-new-tokens)", "yellow")
    return int(failed)
