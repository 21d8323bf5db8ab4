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
    White space before the first letter is left out, as it is everywhere an answer is shown. ``ids`` are the answer's
    tokens without the one that ends it.
    """

    def __init__(self, tokenizer: ChatTokenizer, write: Callable[[str], object]) -> None:
        """Stream to ``write``."""
        self._tokenizer, self._write = tokenizer, write
        self.ids: list[int] = []
        self._ends = 0
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
        for token in value.flatten().tolist():
            if token in self._tokenizer.end_token_ids:  # nothing of the answer, whether or not it is a special token
                self._ends += 1
            else:
                self.ids.append(token)
        self._emit(is_last=False)

    def end(self) -> None:
        """Write what was held back."""
        self._emit(is_last=True)

    def _emit(self, *, is_last: bool) -> None:
        before = self._tokenizer.decode(self.ids[self._context : self._written])
        after = self._tokenizer.decode(self.ids[self._context :])
        if len(after) <= len(before) or (after.endswith(_BROKEN) and not is_last):
            return
        self._context, self._written = self._written, len(self.ids)
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
        return len(self.ids) + self._ends
