"""An answer ends where the template ends a turn, and at every token that the model's files name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chat_folders import CHATML, MISTRAL
from encoded_rows import encoded_row
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.conversations import Conversation, Message
from kit.data.dataset import load_file
from kit.data.encoding import IGNORE_INDEX
from kit.data.end_tokens import declare_ends
from kit.model.files import ModelFileError

if TYPE_CHECKING:
    from pathlib import Path

    from chat_folders import ChatFolder

EOS, IM_END = 2, 260  # in the byte tokenizer with ChatML's two tokens


def folder_of(chat_folder: ChatFolder, template: str = CHATML, **files: Any) -> Path:
    """Write a tokenizer whose eos_token is ``</s>``, whatever its template ends a turn with."""
    folder = chat_folder(CHATML)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config |= {"eos_token": "</s>", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("template", "files", "ids"),
    [
        (MISTRAL, {}, (EOS,)),
        (CHATML, {}, (EOS, IM_END)),
        (CHATML, {"generation_config": {"eos_token_id": IM_END}}, (EOS, IM_END)),
        (CHATML, {"generation_config": {"eos_token_id": [259, IM_END]}}, (EOS, 259, IM_END)),
        (CHATML, {"generation_config": {"eos_token_id": None}}, (EOS, IM_END)),
        (CHATML, {"generation_config": {}, "config": {"eos_token_id": 259}}, (EOS, IM_END)),
        (CHATML, {"config": {"eos_token_id": [259]}}, (EOS, 259, IM_END)),
        (MISTRAL, {"generation_config": {"eos_token_id": [7]}}, (EOS, 7)),
    ],
)
def test_the_tokens_that_end_an_answer(
    chat_folder: ChatFolder, template: str, files: dict[str, Any], ids: tuple[int, ...]
) -> None:
    assert ChatTokenizer.load(str(folder_of(chat_folder, template, **files))).end_token_ids == ids


@pytest.mark.parametrize("named", [99999, -1, 2**40, "2", 2.0, True, [2, None], {"a": 1}, [[2]]])
@pytest.mark.parametrize("name", ["generation_config", "config"])
def test_an_end_that_is_no_token_is_a_sentence(chat_folder: ChatFolder, name: str, named: Any) -> None:
    folder = folder_of(chat_folder, **{name: {"eos_token_id": named}})
    with pytest.raises(ModelFileError, match=rf"/{name}\.json: eos_token_id .* is not in the tokeni"):
        ChatTokenizer.load(str(folder))


def test_a_broken_generation_config_is_a_sentence(chat_folder: ChatFolder) -> None:
    folder = folder_of(chat_folder)
    (folder / "generation_config.json").write_text("[", encoding="utf-8")
    with pytest.raises(ModelFileError, match=r"generation_config\.json: is not JSON"):
        ChatTokenizer.load(str(folder))


def test_the_loss_is_taken_on_the_token_that_ends_the_turn_and_on_nothing_behind_it(chat_folder: ChatFolder) -> None:
    chat = ChatTokenizer.load(str(folder_of(chat_folder)))
    messages = (Message("user", "a"), Message("assistant", "b", is_answer=True)) * 2
    row = encoded_row(Conversation(messages, 1), chat)
    learnt = [label for label in row.labels if label != IGNORE_INDEX]
    assert chat.decode(learnt, special=True) == "b<|im_end|>b<|im_end|>"


@pytest.mark.parametrize(
    ("template", "files", "found"),
    [
        (MISTRAL, {}, None),
        (CHATML, {"generation_config": {"eos_token_id": [EOS, IM_END]}}, None),
        (CHATML, {}, "data.end_not_declared"),
        (CHATML, {"generation_config": {"eos_token_id": EOS}}, "data.end_not_declared"),
        (MISTRAL.replace(" + eos_token", ""), {}, "data.no_end"),
    ],
)
def test_what_is_said_of_an_answers_end(
    chat_folder: ChatFolder, tmp_path: Path, template: str, files: dict[str, Any], found: str | None
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    file = load_file(path, ChatTokenizer.load(str(folder_of(chat_folder, template, **files))), 100, 1)
    said = {finding.id: finding.message for finding in file.findings if finding.severity == "warning"}
    assert list(said) == ([found] if found else [])
    if found == "data.end_not_declared":
        assert (
            "ends answers with '<|im_end|>', which is neither the eos_token ('</s>') nor an eos_token_id"
            in (said[found])
        )


@pytest.mark.parametrize(
    ("files", "written"),
    [
        ({"config.json": {"eos_token_id": 2}}, None),
        (
            {"config.json": {"eos_token_id": [2, 5]}, "generation_config.json": {"eos_token_id": 2, "x": 1}},
            {"eos_token_id": [2, 5], "x": 1},
        ),
        ({"config.json": {"eos_token_id": 2}}, {"eos_token_id": [2, 5]}),
        ({"config.json": {}}, {"eos_token_id": [2, 5]}),
    ],
)
def test_a_written_model_names_every_end(tmp_path: Path, files: dict[str, Any], written: dict[str, Any] | None) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    declare_ends(tmp_path, (2, 5) if written else (2,))
    path = tmp_path / "generation_config.json"
    assert (json.loads(path.read_text(encoding="utf-8")) if path.exists() else None) == written
