"""An answer as it comes: token ids in, text out, never half a letter. Imports neither torch nor transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.data.chat_tokenizer import ChatTokenizer

_BROKEN = "\N{REPLACEMENT CHARACTER}"  # what an unfinished letter decodes to


class AnswerStream:
    """What ``model.generate(streamer=…)`` hands its tokens to, on both stacks.

    Text goes out as soon as no later token can change it: a letter of several byte tokens waits for its last one.
    White space before the first letter is left out, as it is everywhere an answer is shown.
    """

    def __init__(self, tokenizer: ChatTokenizer, write: Callable[[str], object]) -> None:
        """Stream to ``write``."""
        self._tokenizer, self._write = tokenizer, write
        self._ids: list[int] = []
        self._is_prompt = True
        # Decoding from the start each time would cost the square of the answer's length.
        self._context, self._written = 0, 0
        self._begun = False
        self.text = ""

    def put(self, value: Any) -> None:
        """Take the prompt, which comes first and is passed over, or the next token."""
        if self._is_prompt:
            self._is_prompt = False
            return
        self._ids += value.flatten().tolist()
        self._emit(is_last=False)

    def end(self) -> None:
        """Write what was held back."""
        self._emit(is_last=True)

    def _emit(self, *, is_last: bool) -> None:
        before = self._tokenizer.decode(self._ids[self._context : self._written])
        after = self._tokenizer.decode(self._ids[self._context :])
        if len(after) <= len(before) or (after.endswith(_BROKEN) and not is_last):
            return
        self._context, self._written = self._written, len(self._ids)
        new = after[len(before) :]
        if not self._begun:
            new = new.lstrip()
            self._begun = bool(new)
        if new:
            self.text += new
            self._write(new)

    @property
    def tokens(self) -> int:
        """Tokens of the answer so far."""
        return len(self._ids)
