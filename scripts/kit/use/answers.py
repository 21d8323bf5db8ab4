"""Let a model answer prompts, greedily, and score the answers against the ones in the data. Imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kit.data.conversations import Conversation, read_conversations
from kit.data.encoding import encode_prompt
from kit.data.rendering import said_by_the_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from kit.data.chat_tokenizer import ChatTokenizer

_TOKENS_AT_ONCE = 16_384  # of keys and values: 2.1 GB for Mistral-7B in bfloat16, whatever the prompts' lengths


@dataclass(frozen=True)
class EvalPrompt:
    """A conversation up to its last answer, and that answer."""

    conversation: Conversation
    expected: str

    @property
    def prompt(self) -> str:
        """The last thing the user said."""
        return self.conversation.messages[-1].content


def read_questions(path: Path, tokenizer: ChatTokenizer) -> list[EvalPrompt]:
    """Read conversations that end with an answer, which is the expected one; others are left out.

    Raises:
        OSError: The file cannot be read.
        TemplateError: The template refuses a conversation whose answer has thoughts.
    """
    return [
        EvalPrompt(Conversation(item.messages[:-1], item.line), said_by_the_model(item.messages, tokenizer))
        for item in read_conversations(path)
        if isinstance(item, Conversation) and item.messages[-1].is_answer
    ]


def answer(  # noqa: PLR0913 - each is one thing a caller decides
    model: Any,
    tokenizer: ChatTokenizer,
    questions: Sequence[EvalPrompt],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    done: Callable[[int], object] = lambda _count: None,
) -> list[str]:
    """Answer each question greedily; ``done`` gets each batch's number of questions.

    Returns:
        One answer for each question, in their order, stripped of white space at its ends.
    """
    model.eval()
    prompts = [encode_prompt(question.conversation.messages, tokenizer) for question in questions]
    answers = [""] * len(questions)
    for batch in _batches([len(prompt) + max_new_tokens for prompt in prompts], batch_size):
        longest = max(len(prompts[index]) for index in batch)
        # Padded on the left, so that every answer begins at the same column.
        padding = [longest - len(prompts[index]) for index in batch]
        ids = [[tokenizer.eos_token_id] * pad + prompts[index] for pad, index in zip(padding, batch, strict=True)]
        mask = [[0] * pad + [1] * (longest - pad) for pad in padding]
        with torch.no_grad():
            output = model.generate(
                input_ids=torch.tensor(ids).to(model.device),
                attention_mask=torch.tensor(mask).to(model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                use_cache=True,
                eos_token_id=list(tokenizer.end_token_ids),
                pad_token_id=tokenizer.eos_token_id,
            )
        for index, row in zip(batch, output[:, longest:].tolist(), strict=True):
            end = next((at for at, token in enumerate(row) if token in tokenizer.end_token_ids), len(row))
            answers[index] = tokenizer.decode(row[:end]).strip()
        done(len(batch))
    return answers


def _batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Group rows of similar length, up to a bound of tokens."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == batch_size or lengths[index] * (len(batch) + 1) > _TOKENS_AT_ONCE):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def exact_match(answers: Sequence[str], questions: Sequence[EvalPrompt]) -> float:
    """Return the share of answers that are letter for letter what was expected.

    Raises:
        ValueError: There is no question, so there is no share.
    """
    if not questions:
        raise ValueError("there are no questions to score")
    hits = sum(given == question.expected.strip() for given, question in zip(answers, questions, strict=True))
    return hits / len(questions)
