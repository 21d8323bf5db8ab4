"""The real Mistral tokenizers, in each form the hub has served: both stacks' ids, held to Mistral's own encoder's.

1,572 conversations, 72 of them named after what is special about them, the others drawn (``tests/mistral``).
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mistral.conversations import Turns, conversations
from mistral.fetched import REFERENCE, mistral_python, run, write_folders

FOLDERS = ("v0.2-march", "v0.2-september", "v0.3")
CONVERSATIONS = conversations()
# The kit asks for text in every turn, and for turns in order.
EMPTY = {"empty question", "blank question", "empty answer", "blank answer", "empty system"}
OUT_OF_ORDER = {"two systems", "system in between", "two questions", "two answers", "answer first"}
ASKS_ONLY = {"only a question"}
REFUSED = EMPTY | OUT_OF_ORDER | ASKS_ONLY
# mistral-common trains on nothing that ends in a question; the kit on the answers before it.
ENDS_IN_A_QUESTION = {"ends in a question"}
ACCEPTED = CONVERSATIONS.keys() - REFUSED
COMPARED = ACCEPTED - ENDS_IN_A_QUESTION

pytestmark = [pytest.mark.slow, pytest.mark.stacks]
Encoded = dict[str, dict[str, Any]]


@dataclass
class Everything:
    """What each encoder made of the conversations.

    Attributes:
        theirs: mistral-common's, by its version.
        current: The kit's on the current stack, by tokenizer folder.
        reference: The kit's on the reference stack.
    """

    theirs: dict[str, Encoded] = field(default_factory=dict)
    current: dict[str, Encoded] = field(default_factory=dict)
    reference: dict[str, Encoded] = field(default_factory=dict)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Everything:
    scratch = tmp_path_factory.mktemp("mistral")
    folders, found = write_folders(scratch / "folders"), Everything()

    def encode(job: tuple[dict[str, Encoded], Path, str, str]) -> None:
        into, python, program, what = job
        out = scratch / f"{python.parent.parent.name}-{what}.json"
        run(python, program, what if program == "theirs.py" else folders / what, out)
        into[what] = json.loads(out.read_text(encoding="utf-8"))

    jobs = [(found.theirs, mistral_python(), "theirs.py", version) for version in ("v1", "v3")]
    for folder in FOLDERS:
        jobs.append((found.current, Path(sys.executable), "ours.py", folder))
        jobs.append((found.reference, REFERENCE, "ours.py", folder))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(encode, jobs))
    return found


def _differing(left: Encoded, right: Encoded, key: str, names: set[str], other: str = "") -> set[str]:
    return {name for name in names if left[name].get(key) != right[name].get(other or key)}


def _answers(turns: Turns) -> int:
    return sum(role == "assistant" for role, _ in turns)


def test_the_conversations_are_as_many_as_ever() -> None:
    assert len(CONVERSATIONS) == 1572
    assert len(COMPARED) == 1560


@pytest.mark.parametrize("folder", FOLDERS)
def test_both_stacks_make_the_same_of_every_form(encoded: Everything, folder: str) -> None:
    current, reference = encoded.current[folder], encoded.reference[folder]
    assert {name for name in CONVERSATIONS if current[name] != reference[name]} == set()


def test_what_the_kit_refuses_has_no_text_or_no_order(encoded: Everything) -> None:
    refused = {name: row["refused"] for name, row in encoded.current["v0.2-september"].items() if "refused" in row}
    assert refused.keys() == REFUSED
    assert {name for name, why in refused.items() if "has an empty" in why} == EMPTY
    theirs = {name for name, row in encoded.theirs["v1"].items() if "refused" in row}
    assert theirs - REFUSED == ENDS_IN_A_QUESTION


class TestSeptember:
    """Main since September 2024: the revision the configurations name."""

    @pytest.fixture
    def ours(self, encoded: Everything) -> Encoded:
        return encoded.current["v0.2-september"]

    @pytest.fixture
    def theirs(self, encoded: Everything) -> Encoded:
        return encoded.theirs["v1"]

    def test_rows_are_mistrals_own(self, ours: Encoded, theirs: Encoded) -> None:
        assert _differing(ours, theirs, "ids", COMPARED) == set()

    def test_labels_are_the_answers_with_their_ends_and_nothing_else(self, ours: Encoded, theirs: Encoded) -> None:
        for row in theirs.values():
            row["labels"] = [-100] * len(row.get("ids", ()))
            for begin, end in row.get("spans", ()):
                row["labels"][begin:end] = row["ids"][begin:end]
        assert _differing(ours, theirs, "labels", COMPARED) == set()

    def test_evaluation_sends_mistrals_own_prompt(self, ours: Encoded, theirs: Encoded) -> None:
        assert _differing(ours, theirs, "evaluate", COMPARED, "prompt") == set()

    def test_answers_are_decoded_as_mistral_decodes_them(self, ours: Encoded, theirs: Encoded) -> None:
        assert _differing(ours, theirs, "said", COMPARED) == set()


@pytest.mark.parametrize("folder", FOLDERS)
def test_evaluation_and_chat_send_what_training_saw(encoded: Everything, folder: str) -> None:
    rows = {name: row for name, row in encoded.current[folder].items() if "evaluate" in row}
    assert {name for name, row in rows.items() if row["ids"][: len(row["evaluate"])] != row["evaluate"]} == set()
    assert {name for name, row in rows.items() if row["chat"] != row["evaluate"]} == set()


def test_march_asks_as_mistral_does_where_no_answer_stands_before(encoded: Everything) -> None:
    """Its answers have no blank in front, and Mistral's own have: what follows one is another prompt."""
    first = {name for name in COMPARED if _answers(CONVERSATIONS[name]) == 1}
    assert len(first) == 809
    assert _differing(encoded.current["v0.2-march"], encoded.theirs["v1"], "evaluate", first, "prompt") == set()


def test_v03_is_mistrals_own_but_for_what_it_strips_and_moves(encoded: Everything) -> None:
    """mistral-common takes the blanks off an answer's end, and moves a system message with the last question."""
    ours, theirs = encoded.current["v0.3"], encoded.theirs["v3"]
    moved = {name for name in COMPARED if CONVERSATIONS[name][0][0] == "system" and _answers(CONVERSATIONS[name]) > 1}
    stripped = {
        name
        for name in COMPARED - moved
        if any(role == "assistant" and content != content.rstrip(" ") for role, content in CONVERSATIONS[name])
    }
    assert (len(moved), len(stripped)) == (135, 121)
    assert {name for name in COMPARED if "refused" in ours[name]} == moved
    assert _differing(ours, theirs, "ids", COMPARED - moved - stripped) == set()
    assert _differing(ours, theirs, "evaluate", COMPARED - moved - stripped, "prompt") == set()


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    scratch = tmp_path_factory.mktemp("wrapped")
    folders, found = write_folders(scratch / "folders"), {}

    def encode(job: tuple[str, str, Path]) -> None:
        folder, stack, python = job
        run(python, "wrapped.py", folders / folder, scratch / f"{folder}-{stack}.json")
        found[folder, stack] = json.loads((scratch / f"{folder}-{stack}.json").read_text(encoding="utf-8"))

    pythons = {"current": Path(sys.executable), "reference": REFERENCE}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(encode, [(folder, *stack) for folder in FOLDERS for stack in pythons.items()]))
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_transformers_around_the_kits_tokenizer_is_the_same_on_both_stacks(
    wrapped: dict[tuple[str, str], dict[str, Any]], folder: str
) -> None:
    """With and without special tokens, of texts that begin with one and of others, and after saving it."""
    current, reference = wrapped[folder, "current"], wrapped[folder, "reference"]
    assert len(current["wrapped"]) > 1500
    for other in (current["reloaded"], reference["wrapped"], reference["reloaded"]):
        assert other == current["wrapped"]
    # Where transformers reads the folder by itself, it makes the same of it; but transformers 5 makes the older form's
    # normalizer anew, which reads a blank at the beginning of a text otherwise.
    if folder == "v0.2-march":
        assert reference["own"] == current["wrapped"]
    else:
        assert "PyPreTokenizerTypeWrapper" in reference["own"]
        assert current["own"] == current["wrapped"]
