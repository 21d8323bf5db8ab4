"""What the tests of data and tokenizers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from chat_folders import write_chat_folder
from kit.data.chat_tokenizer import ChatTokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from chat_folders import ChatFolder


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> ChatFolder:
    """Write a tokenizer's folder: ``chat_folder(template, style, **config)``."""

    def write(*args: Any, **config: Any) -> Path:
        return write_chat_folder(tmp_path_factory.mktemp("chat"), *args, **config)

    return write


@pytest.fixture(scope="session")
def byte_chat(chat_folder: ChatFolder) -> ChatTokenizer:
    """Read bytes as tokens, in Mistral v0.2's template."""
    return ChatTokenizer.load(str(chat_folder()))
