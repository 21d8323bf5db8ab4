"""The conversations that every encoder gets: by name, lists of (role, content)."""

from __future__ import annotations

import random

Turns = list[tuple[str, str]]
_FUZZED = 1500
# Questions and answers with something special about an end, a character or a token.
_PAIRS: dict[str, tuple[str, str]] = {
    "plain": ("Which spice goes with carrots?", "Cumin does, and a little orange."),
    "blank before an answer": ("Go on", " one blank"),
    "blanks before an answer": ("Go on", "   three blanks"),
    "blank behind an answer": ("Go on", "one blank "),
    "blanks behind an answer": ("Go on", "three blanks   "),
    "line before an answer": ("Go on", "\na line"),
    "line behind an answer": ("Go on", "a line\n"),
    "tab before an answer": ("Go on", "\ta tab"),
    "full stop": ("Go on", "."),
    "brackets": ("A list?", "[1, [2, 3]]"),
    "braces": ("JSON?", '{"key": ["value", null]}'),
    "parentheses": ("Say", "(aside)"),
    "digit": ("6 x 7?", "42"),
    "quoted": ("Quote", "\"quoted\" 'too'"),
    "colon": ("Go on", ": so"),
    "dashes": ("Points", "- one\n  - two\n\t* three"),
    "heading": ("Page", "# Title\n\nText"),
    "fence": ("Code", "```python\ndef f(x):\n\treturn x  # so\n```\n"),
    "blanks around a question": ("   ask   ", "tell"),
    "lines around a question": ("\n\nask\n\n", "tell"),
    "tabs": ("a\tb\t\tc", "d\te"),
    "carriage returns": ("one\r\ntwo", "three\r\nfour\r"),
    "open bracket behind a question": ("end in [", "]end"),
    "many blanks": ("a" + " " * 50 + "b", "c" + " " * 31 + "d"),
    "emoji": ("🦙 and 👨‍👩‍👧", "👍🏽 🎉"),
    "only an emoji": ("x", "🎉"),
    "East Asian": ("日本語と中文", "はい、한국어도"),
    "right to left": ("שלום", "مرحبا \u200f!"),
    "combining": ("e\u0301 é a\u0323\u0308", "o\u0302\u0303 Z\u0351\u036b"),
    "compatibility": ("ﬁ Ⅷ ① ｱ", "ﬃ ² ½"),
    "of no width": ("a\u200bb\u200dc\ufeffd", "x\u2060y\u00ad"),
    "blanks of other kinds": ("a\u00a0b\u2003c\u3000d", "\u00a0first"),
    "line ends of other kinds": ("a\u2028b\u2029c\u0085d", "e\x0bf\x0cg"),
    "control characters": ("bell\x07 \x1b[31m", "\x01so\x7f"),
    "rare": ("𓀀 𐍈 ꙮ", "𠜎 ⏏"),
    "the mark of a blank": ("meta ▁ ▁▁x", "▁first"),
    "markup": ("<b>'a' & \"b\"</b>", "&amp; <br/>"),
    "C": ('int main(void) {\n    printf("%d\\n", 1);\n}', "#include <stdio.h>\n\n\treturn 0;\n"),
    "bytes written out": ("<0x0A> and <0x41>", "<0x42>"),
    "instruction marks in a question": ("ignore [/INST] go on [INST] that", "no"),
    "instruction marks in an answer": ("hi", "[INST] text [/INST] end"),
    "end token in a question": ("a </s> b", "ok"),
    "end token in an answer": ("hi", "a </s> b"),
    "end token without blanks": ("x</s>y", "a</s>b"),
    "end token at an end": ("hi</s>", "done</s>"),
    "beginning token": ("<s>start", "<s>x"),
    "unknown token": ("<unk> here", "<unk>"),
    "tokens of a later tokenizer": ("[TOOL_CALLS] [control_8]", "[AVAILABLE_TOOLS] x [/TOOL_RESULTS]"),
    "long question": ("Packed tightly, the wizards quiz jolly foxes. " * 500, "short"),
    "long answer": ("go", "Er sagte: „Grüße!“ 1234567890 " * 400),
    "numbers": ("3.14159 1,000,000 2024-01-01", "0.1e-5"),
    "addresses": ("https://x.y/z?a=1&b=2#c", "mailto:a@b.c"),
    "lines and blanks": ("A\n B\n\n  C", "D\n\n\n E "),
    "empty question": ("", "ok"),
    "blank question": ("   ", "ok"),
    "empty answer": ("hi", ""),
    "blank answer": ("hi", "   "),
}
_LONGER: dict[str, Turns] = {
    "two turns": [("user", "Hello"), ("assistant", "Hi!"), ("user", "And you?"), ("assistant", "Fine.")],
    "blanks over two turns": [("user", " a "), ("assistant", " b "), ("user", "\nc\n"), ("assistant", "\td")],
    "sixty turns": [turn for i in range(60) for turn in (("user", f"question {i}?"), ("assistant", f"answer {i}."))],
    "system": [("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi!")],
    "system over two turns": [
        *(("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi!"), ("user", "Why?"), ("assistant", "So."))
    ],
    "system of lines": [("system", "One.\n\n Two. "), ("user", " Hello"), ("assistant", "Hi!")],
    "system with an end token": [("system", "rules </s>"), ("user", "hello"), ("assistant", "hi")],
    "empty system": [("system", ""), ("user", "hi"), ("assistant", "ok")],
    "two systems": [("system", "a"), ("system", "b"), ("user", "hi"), ("assistant", "ok")],
    "system in between": [
        *(("user", "hi"), ("assistant", "ok"), ("system", "be brief"), ("user", "x"), ("assistant", "y"))
    ],
    "two questions": [("user", "one"), ("user", "two"), ("assistant", "ok")],
    "two answers": [("user", "one"), ("assistant", "a"), ("assistant", "b")],
    "answer first": [("assistant", "welcome"), ("user", "hi"), ("assistant", "ok")],
    "ends in a question": [("user", "hi"), ("assistant", "ok"), ("user", "more")],
    "only a question": [("user", "hi")],
}
# What meets at the border between two turns, and between words.
_PIECES = [
    *("word", "Word", "ing", "the", "def ", "INST", "[/INST", " ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "▁"),
    *"[](){}.,:;!?-_/\\'\"`#*=+$%&~^|@<>1",
    *("23", "é", "e\u0301", "日", "🦙", "ש", "\u200d", "ß", "ﬁ", "</", "s>", "</s>", "<s>"),
]


def _drawn(count: int) -> dict[str, Turns]:
    draw = random.Random(0)  # noqa: S311 - texts, no secrets
    drawn: dict[str, Turns] = {}
    for number in range(count):
        turns: Turns = []
        if draw.random() < 0.2:
            turns.append(("system", "S" + "".join(draw.choices(_PIECES, k=draw.randint(1, 8)))))
        for _ in range(draw.choice((1, 1, 2, 3))):
            for role in ("user", "assistant"):
                text = "".join(draw.choices(_PIECES, k=draw.randint(1, 12)))
                is_seen = any(character.isprintable() and character != " " for character in text)
                turns.append((role, text if is_seen else f"{text}x"))
        drawn[f"drawn {number}"] = turns
    return drawn


def conversations() -> dict[str, Turns]:
    """Return them all, the same each time."""
    pairs = {name: [("user", question), ("assistant", answer)] for name, (question, answer) in _PAIRS.items()}
    return {**pairs, **_LONGER, **_drawn(_FUZZED)}
