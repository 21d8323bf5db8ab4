"""Near duplicates: rows that share most of their words are found, others are not, the same on every machine."""

from __future__ import annotations

from kit.intake.near import NearIndex, signature_of

WORDS = [f"word{number}" for number in range(80)]


def test_a_row_with_one_word_changed_is_like_the_first() -> None:
    index = NearIndex()
    changed = " ".join([*WORDS[:40], "other", *WORDS[41:]])
    assert index.first_like(1, signature_of(" ".join(WORDS))) is None
    assert index.first_like(2, signature_of(changed)) == 1
    assert index.first_like(3, signature_of(" ".join(WORDS[::-1]))) is None
    assert index.first_like(4, signature_of(" ".join(WORDS[::-1]))) == 3


def test_the_threshold_is_kept() -> None:
    half = " ".join([*WORDS[:40], *(word + "x" for word in WORDS[40:])])
    for threshold, expected in ((0.95, None), (0.2, 1)):
        index = NearIndex(threshold)
        index.first_like(1, signature_of(" ".join(WORDS)))
        assert index.first_like(2, signature_of(half)) == expected


def test_signatures_are_the_same_everywhere() -> None:
    import hashlib

    assert hashlib.sha256(signature_of("the quick brown fox jumps over the dog")).hexdigest()[:16] == "fdbb6767d35a2aba"
    assert signature_of("") == signature_of("")
