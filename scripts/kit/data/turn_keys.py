"""The allowed keys of turns: each is used, decides what carries loss, is reported as ignored, or is rejected.

Programs mark turns with loss in many ways: ``weight`` (OpenAI's format, Axolotl), ``train`` and ``training`` (Axolotl),
``loss`` (ms-swift, XTuner), a row's ``loss_mask``. Those whose meaning is clear are followed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from kit.data.row_values import NOTHING, RowError, is_blank, near, shown_key, text_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

SPOKEN = ("role", "from", "content", "value")
THOUGHTS = ("reasoning_content", "reasoning", "thinking")  # before an answer: keys that some templates render
FLAGS = ("weight", "loss_weight", "train", "training", "trainable", "loss")  # 0 or 1: whether a turn carries loss
_MASK = "loss_mask"  # as a row's list, a flag per turn
# 1 means "with loss" to some programs and "without" to others; or it masks the tokens of another model.
_UNCLEAR = (_MASK, "loss_scale", "mask", "masked", "assistant_mask", "assistant_masks", "completion_mask")
_MASKS = dict.fromkeys((*FLAGS, *_UNCLEAR)).keys()
# Bookkeeping that no template uses.
_BOOKKEEPING = frozenset(
    {"id", "uuid", "message_id", "parent_id", "turn_id", "turn_identifier", "index", "timestamp", "created_at"}
)
_KNOWN = (*SPOKEN, *THOUGHTS, *FLAGS)
_SAY_IT = (
    "set weight to 0 or 1 in each answer's turn; or write the turns without loss as prompt (a list of turns) and the "
    "others as completion"
)

Flags = tuple[tuple[str, bool], ...]  # key and value of each flag


class Beside(NamedTuple):
    """What a turn holds beside its role and content."""

    flags: Flags = ()  # whether it carries loss
    thoughts: tuple[tuple[str, str], ...] = ()  # key and text
    left: tuple[str, ...] = ()  # ignored keys


NOTHING_BESIDE = Beside()


def beside_of(turn: dict[str, Any]) -> Beside:
    """Sort the keys of a turn beside its role and content.

    Raises:
        RowError: A key is unknown, or its value is unclear.
    """
    more = {key: value for key, value in turn.items() if key not in SPOKEN and value not in NOTHING}
    flags, thoughts, left = [], [], []
    for key, value in more.items():
        if key in FLAGS:
            flags.append((key, _flag(key, value, "turn")))
        elif key in THOUGHTS:
            if not is_blank(text := text_of(turn, key)):
                thoughts.append((key, text))
        elif key in _BOOKKEEPING:
            left.append(key)
        elif key in _UNCLEAR:
            raise _unclear(key, "turn")
        else:
            raise lost(key, "turn", _KNOWN)
    return Beside(tuple(flags), tuple(thoughts), tuple(left))


def like_a_mask(key: str) -> str:
    """Return the mask key that another resembles, as ``Weights`` does ``weight``; empty for none."""
    return _MASK_FORMS.get(_plain(key), "") if key not in _MASKS else ""


def _plain(key: str) -> str:
    return re.sub("[-_ ]", "", key.casefold()).removesuffix("s")


_MASK_FORMS = {_plain(key): key for key in _MASKS}


def masks_of(row: dict[str, Any], used: Collection[str]) -> list[tuple[str, list[bool]]]:
    """Return the lists beside a row's turns that flag each of them, by key.

    Raises:
        RowError: A key switches the whole row off, holds other values than 0 and 1, or is ambiguous.
    """
    masks = []
    for key in () if _MASKS.isdisjoint(row) else _MASKS:
        value = row.get(key)
        if value in NOTHING or key in used:
            continue
        if isinstance(value, list) and key in (*FLAGS, _MASK):
            masks.append((key, [_flag(key, one, "row") for one in value]))
        elif key in _UNCLEAR:
            raise _unclear(key, "row")
        elif not _flag(key, value, "row"):
            raise RowError(f"has {key} 0 or false, so there is nothing to train on", f"remove the row or {key}")
    return masks


def is_learnt(role: str, flags: Flags, *, answers: bool) -> bool:
    """Decide whether a turn carries loss; ``answers`` says whether assistant turns do unless flagged otherwise.

    Raises:
        RowError: Its flags contradict each other, or ask for loss on a turn that is not an answer.
    """
    is_answer = answers and role == "assistant"
    if not flags:
        return is_answer
    asked = {said: key for key, said in flags}
    if len(asked) > 1:
        raise RowError(f"has contradicting {asked[True]} and {asked[False]} in a turn", "keep one of them")
    if True in asked and not is_answer:
        where = "a turn of its prompt" if role == "assistant" else f"a {role} turn"
        raise RowError(
            f"has {asked[True]} set on {where}, but only answers are trained on",
            "write what to train on as completion, and everything before it as prompt (a list of turns)",
        )
    return is_answer and False not in asked


def refuse_others(mapping: dict[str, Any], kind: str, known: Iterable[str]) -> None:
    """Reject unknown keys that hold something.

    Raises:
        RowError: With the first.
    """
    for key, value in mapping.items():
        if key not in known and value not in NOTHING:
            raise lost(key, kind, tuple(known))


def lost(key: str, kind: str, known: tuple[str, ...]) -> RowError:
    """Return the error of a key whose meaning would be lost."""
    meant = near(key, known)
    fix = f"write it as text in the turns, or remove {shown_key(key)}"
    return RowError(
        f"has {shown_key(key)} in its {kind}, which would be lost",
        f"did you mean {meant}? If not, {fix}" if meant else fix,
    )


def _flag(key: str, value: Any, kind: str) -> bool:
    if not isinstance(value, (bool, int, float)) or value not in (0, 1):
        raise RowError(f"has {key} in its {kind} that is neither 0 nor 1, true nor false", _SAY_IT)
    return bool(value)


def _unclear(key: str, kind: str) -> RowError:
    return RowError(f"has {key} in its {kind}, which programs read in different ways", _SAY_IT)
