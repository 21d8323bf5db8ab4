"""A conversation with a model: its turns, the part that fits, the next answer. Imports torch to answer."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.data.conversations import Message
from kit.data.encoding import encode_prompt
from kit.data.template import TemplateError
from kit.use.streaming import AnswerStream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.use.loading import Loaded


class PromptError(ValueError):
    """A question cannot be asked; the message says why in a sentence."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 is greedy.
        top_p: Nucleus sampling's share.
        top_k: 0 for all.
        repetition_penalty: Above 1, repeats become less likely.
        seed: None for another one each time.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 512
    seed: int | None = None

    def arguments(self) -> dict[str, Any]:
        """Return every argument of ``generate``, since missing ones would come from the base's defaults."""
        chosen: dict[str, Any] = {"do_sample": self.temperature > 0, "repetition_penalty": self.repetition_penalty}
        if self.temperature > 0:
            chosen |= {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        return chosen


@dataclass(frozen=True)
class Reply:
    """One answer.

    Attributes:
        text: Without the special tokens, stripped.
        ending: ``end`` (by the model), ``length`` (cut off) or ``stopped`` (Ctrl-C).
        forgotten: Earlier turns dropped for good since they no longer fit.
        length_so_far: Tokens of the conversation with this answer.
    """

    text: str
    tokens: int
    seconds: float
    ending: str
    forgotten: int = 0
    length_so_far: int = 0


class Conversation:
    """The turns so far."""

    def __init__(self, tokenizer: ChatTokenizer, context_length: int, system: str = "") -> None:
        """Begin with the system message, if there is one."""
        self.tokenizer, self.context_length = tokenizer, context_length
        self.system = [Message("system", system)] if system else []
        self.turns: list[Message] = []

    def reset(self) -> None:
        """Forget every turn; the system message stays."""
        self.turns.clear()

    def take_back(self) -> str | None:
        """Take the last question and its answer out, and return the question; None where there is none."""
        if not self.turns:
            return None
        *self.turns, question, _answer = self.turns
        return question.content

    def prepare(self, question: str, max_new_tokens: int) -> tuple[list[int], int, int]:
        """Encode the conversation with a new question at its end, forgetting the oldest turns where it is too long.

        Returns:
            Token ids, how many tokens the answer may have, and how many turns were forgotten.

        Raises:
            PromptError: The question alone is too long, or the template refuses it.
        """
        reserve = min(max_new_tokens, self.context_length // 2)
        asked = Message("user", question)
        forgotten = 0
        while True:
            ids = self._encode([*self.system, *self.turns, asked])
            if len(ids) + reserve <= self.context_length:
                break
            if not self.turns:
                if len(ids) < self.context_length:
                    break
                raise PromptError(
                    f"{len(ids):,} tokens, but the model's context is {self.context_length:,} with its answer; ask a "
                    "shorter question"
                )
            del self.turns[:2]
            forgotten += 2
        return ids, min(max_new_tokens, self.context_length - len(ids)), forgotten

    def _encode(self, messages: Sequence[Message]) -> list[int]:
        try:
            return encode_prompt(messages, self.tokenizer)
        except TemplateError as exc:
            raise PromptError(f"the conversation {exc}") from exc

    def add(self, question: str, answer: str) -> None:
        """Keep a question and its answer."""
        self.turns += [Message("user", question), Message("assistant", answer)]


def reply(  # noqa: PLR0913 - each is one thing a caller decides
    loaded: Loaded,
    conversation: Conversation,
    question: str,
    *,
    sampling: Sampling,
    write: Callable[[str], object],
    adapter: bool,
    listening: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> Reply:
    """Answer a question, streaming the answer to ``write``; Ctrl-C ends the answer and keeps its beginning.

    The conversation keeps the answer unstripped.
    An answer that was stopped before its first word is not kept, and neither is its question. ``listening`` is entered
    while the model works: see ``kit.use.interrupts``.

    Raises:
        PromptError: See ``Conversation.prepare``.
    """
    import torch

    ids, room, forgotten = conversation.prepare(question, sampling.max_new_tokens)
    stream = AnswerStream(loaded.tokenizer, write)
    if sampling.seed is not None:
        torch.manual_seed(sampling.seed)
    tokenizer = loaded.tokenizer
    begun = time.monotonic()
    last = None
    try:
        with listening(), loaded.active(adapter=adapter) as model:
            prompt = torch.tensor([ids], device=model.device)
            output = model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=room,
                use_cache=True,
                eos_token_id=list(tokenizer.end_token_ids),
                pad_token_id=tokenizer.eos_token_id,
                streamer=stream,
                **sampling.arguments(),
            )
            last = int(output[0, -1])
        ending = "end" if last in tokenizer.end_token_ids else "length"
    except KeyboardInterrupt:
        stream.end()
        ending = "stopped"
    text = stream.text.strip()
    if text or ending != "stopped":
        conversation.add(question, tokenizer.continuation(ids, stream.ids))
    return Reply(text, stream.tokens, time.monotonic() - begun, ending, forgotten, len(ids) + stream.tokens)
