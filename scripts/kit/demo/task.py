"""The demo's task, which needs no download: spelling of made-up words, in a plain form and a chat form.

The base model is pre-trained on the plain form of three tasks; the demo fine-tunes it on the chat form of one of them.
Training words are random letters, so that none can be memorised; the validation words are English, and unseen.
"""

from __future__ import annotations

import json
import random
import string
from typing import Any

TASKS = {
    "reverse": lambda word: word[::-1],
    "first": lambda word: word[0],
    "last": lambda word: word[-1],
}
SHORTEST, LONGEST = 3, 6  # letters
TRAIN_ROWS = 4000
# fmt: off
VALIDATION_WORDS = (
    "amber", "anchor", "apple", "arrow", "autumn", "badge", "bake", "barn", "basil", "beach", "berry", "bird", "blade",
    "blue", "board", "bottle", "bread", "brick", "bright", "bubble", "butter", "cabin", "candle", "castle", "chalk",
    "cherry", "circle", "cloud", "coast", "copper", "coral", "cotton", "crown", "dance", "dawn", "desert", "dinner",
    "dove", "dragon", "dust", "eagle", "earth", "echo", "ember", "empty", "engine", "fable", "falcon", "feast", "fern",
    "field", "finger", "flame", "flour", "forest", "fox", "garden", "gentle", "ginger", "glass", "golden", "grape",
    "green", "harbor", "hazel", "honey", "island", "ivory", "jacket", "jungle", "kettle", "lemon", "light", "maple",
    "marble", "meadow", "mirror", "moss", "night", "oak", "ocean", "olive", "orange", "owl", "pearl", "pepper", "pine",
    "planet", "quiet", "rain", "river", "rose", "salt", "silver", "spring", "stone", "summer", "thread", "velvet",
    "window",
)
# fmt: on


def random_word(source: random.Random) -> str:
    """Make a word of random letters that is not a validation word."""
    while True:
        word = "".join(source.choices(string.ascii_lowercase, k=source.randint(SHORTEST, LONGEST)))
        if word not in VALIDATION_WORDS:
            return word


def plain_line(source: random.Random) -> str:
    """Return one task in the plain form: ``reverse word: drow``."""
    task = source.choice(list(TASKS))
    word = random_word(source)
    return f"{task} {word}: {TASKS[task](word)}"


def chat_row(word: str) -> dict[str, Any]:
    """Return the chat row that asks to reverse a word."""
    return {
        "messages": [
            {"role": "user", "content": f"Write the word {word} backwards."},
            {"role": "assistant", "content": TASKS["reverse"](word)},
        ]
    }


def sample_files(seed: int = 1) -> dict[str, str]:
    """Return the contents of ``data/sample/`` by file name, the same for the same seed."""
    source = random.Random(seed)  # noqa: S311 - sample data, not a secret
    words: dict[str, None] = {}  # an ordered set
    while len(words) < TRAIN_ROWS:
        words[random_word(source)] = None
    files = {
        "train.jsonl": [chat_row(word) for word in words],
        "val.jsonl": [chat_row(word) for word in VALIDATION_WORDS],
    }
    return {name: "".join(json.dumps(row) + "\n" for row in rows) for name, rows in files.items()}
