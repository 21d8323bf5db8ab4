"""Let a model answer prompts, greedily, and score the answers against the ones in the data. Imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kit.data.conversations import Conversation, read_conversations

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kit.data.chat_tokenizer import ChatTokenizer


@dataclass(frozen=True)
class Question:
    """A conversation up to its last answer, and that answer."""

    conversation: Conversation
    expected: str

    @property
    def prompt(self) -> str:
        """The last thing the user said."""
        return self.conversation.messages[-1].content


def read_questions(path: Path) -> list[Question]:
    """Take the answer each conversation ends with as what is expected; a conversation that ends otherwise asks nothing.

    Raises:
        OSError: The file cannot be read.
    """
    return [
        Question(Conversation(item.messages[:-1], item.line), item.messages[-1].content)
        for item in read_conversations(path)
        if isinstance(item, Conversation) and item.messages[-1].is_answer
    ]


def answer(
    model: Any, tokenizer: ChatTokenizer, questions: Sequence[Question], *, max_new_tokens: int, batch_size: int = 32
) -> list[str]:
    """Answer each question greedily.

    Args:
        model: A causal language model, with or without adapter.
        tokenizer: The base's tokenizer and template.
        questions: What to answer.
        max_new_tokens: Longest answer, in tokens.
        batch_size: Questions at once.

    Returns:
        One answer for each question, stripped of white space at its ends.
    """
    model.eval()
    answers: list[str] = []
    for begin in range(0, len(questions), batch_size):
        batch = questions[begin : begin + batch_size]
        prompts = [
            tokenizer.encode(tokenizer.render(question.conversation.messages, add_generation_prompt=True))[0]
            for question in batch
        ]
        longest = max(map(len, prompts))
        # Padded on the left, so that every answer begins at the same column.
        ids = torch.tensor([[tokenizer.eos_token_id] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.no_grad():
            output = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                use_cache=True,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.eos_token_id,
            )
        answers += [tokenizer.decode(row).strip() for row in output[:, longest:].tolist()]
    return answers


def exact_match(answers: Sequence[str], questions: Sequence[Question]) -> float:
    """Return the share of answers that are letter for letter what was expected.

    Raises:
        ValueError: There is no question, so there is no share.
    """
    if not questions:
        raise ValueError("there are no questions to score")
    hits = sum(given == question.expected.strip() for given, question in zip(answers, questions, strict=True))
    return hits / len(questions)
