"""The shipped configurations with something changed: by a person's slip, by a tool, by someone who means harm."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from kit.cli.interpreter import PROJECT_ROOT
from kit.config import schema
from kit.config.yaml_writer import scalar
from torture.damage import BYTES, ODD_TEXT
from torture.fuzzing import Mutant

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

_WHOLE_SHARE = 0.1  # of the mutants keep their comments: slower to read, and nothing more to find
_VALUES = (
    "", "~", "null", "true", "True", "yes", "on", "false", "no", "0", "-0", "1", "-1", "+1", "2", "7", "010", "0x10",
    "1_000", "1e3", "1e-4", "2E-4", "1.", ".5", "1.0", "4.0", "0.0", "1e999", "-1e999", "1e-999", ".nan", ".inf",
    "-.inf", "nan",
    "99999999999999999999", "1" + "0" * 99, "1" + "0" * 100, "9" * 5000, "'8'", '"8"', "'true'", "[]", "[8]",
    "[q_proj]", "[q_proj, q_proj]", "[q_proj, 1]", "{}", "{r: 8}", "text", "'text'", "two words", "a: b",
    "# nothing", "''", "' '",
    "~/x", "nf4", "bfloat16", "cosine", "cpu", "|\n    text", ">\n    text", "!!int 8", "!!python/object:os.system x",
    "&a 8", "*a", "2001-01-01", "12:30", "1:2", "=", "<<", "\ud83d\ude00",
)  # fmt: skip

Lines = list[str]


def _at_key(source: Random, lines: Lines) -> int:
    return source.choice([at for at, line in enumerate(lines) if re.match(r"\s*\w+:", line)])


def _delete_line(source: Random, lines: Lines) -> None:
    del lines[source.randrange(len(lines))]


def _double_line(source: Random, lines: Lines) -> None:
    lines.insert(source.randrange(len(lines) + 1), source.choice(lines))


def _swap_lines(source: Random, lines: Lines) -> None:
    one, other = source.randrange(len(lines)), source.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]


def _indent(source: Random, lines: Lines) -> None:
    at = source.randrange(len(lines))
    lines[at] = source.choice(["", " ", "   ", "    ", "\t", "  \t"]) + lines[at].lstrip()


def _mistype_key(source: Random, lines: Lines) -> None:
    at = _at_key(source, lines)
    blank, key, rest = re.fullmatch(r"(\s*)(\w+)(:.*)", lines[at], re.DOTALL).groups()  # type: ignore[union-attr]
    place = source.randrange(len(key))
    key = source.choice(
        [
            key[:place] + key[place + 1 :],
            key[:place] + source.choice("aeioulr_-. ") + key[place:],
            key[:place] + key[place:][1:2] + key[place : place + 1] + key[place + 2 :],
            key.upper(),
            key.replace("_", "-"),
            f"'{key}'",
            f'"{key}"',
            f"? {key}",
        ]
    )
    lines[at] = blank + key + rest


def _other_value(source: Random, lines: Lines) -> None:
    at = _at_key(source, lines)
    value = source.choice(_VALUES) if source.random() < 0.6 else _near_the_edge(source)
    lines[at] = f"{lines[at].partition(':')[0]}: {value}"


def _near_the_edge(source: Random) -> str:
    """Return a number at, or just beyond, a bound of some key."""
    bounds = [rule[name] for rule in schema.keys().values() for name in ("min", "max", "above") if name in rule]
    bound = source.choice(bounds)
    return scalar(source.choice([bound, bound - 1, bound + 1, float(bound), -bound, bound * 1.0000001]))


def _swap_values(source: Random, lines: Lines) -> None:
    one, other = _at_key(source, lines), _at_key(source, lines)
    (key, _, value), (other_key, _, other_value) = lines[one].partition(":"), lines[other].partition(":")
    lines[one], lines[other] = f"{key}:{other_value}", f"{other_key}:{value}"


def _quote(source: Random, lines: Lines) -> None:
    at = _at_key(source, lines)
    key, _, value = lines[at].partition(":")
    lines[at] = f"{key}: {source.choice(['%r', '[%s]', '{a: %s}', '- %s', '!!str %s', '&x %s']) % value.strip()}"


def _repeat_key(source: Random, lines: Lines) -> None:
    lines.insert(_at_key(source, lines) + source.randint(0, 1), lines[_at_key(source, lines)])


def _new_key(source: Random, lines: Lines) -> None:
    names = [
        *schema.SCHEMA,
        *(key for body in schema.SCHEMA.values() for key in body["schema"]),
        "lr",
        "epochs",
        "on",
        "1",
        "a b",
    ]
    blank, name, value = source.choice(["", "  "]), source.choice(names), source.choice(_VALUES)
    lines.insert(source.randrange(len(lines) + 1), f"{blank}{name}: {value}")


def _nest(source: Random, lines: Lines) -> None:
    at, depth = _at_key(source, lines), source.choice([1, 2, 7, 8, 9, 50, 1_200])
    opening, closing = source.choice([("[", "]"), ("{a: ", "}"), ("- ", "")])
    key, _, value = lines[at].partition(":")
    lines[at] = f"{key}: {opening * depth}{value.strip()}{closing * depth}"


def _alias(source: Random, lines: Lines) -> None:
    one, other = sorted((_at_key(source, lines), _at_key(source, lines)))
    lines[one] = re.sub(r":", ": &a", lines[one], count=1)
    lines[other] = f"{lines[other].partition(':')[0]}: *a"


def _merge(source: Random, lines: Lines) -> None:
    lines.insert(source.randrange(len(lines) + 1), source.choice(["  <<: {r: 8}", "<<: {}", "  <<: *a", "  '<<': 1"]))


def _document(source: Random, lines: Lines) -> None:
    mark = source.choice(
        ["---", "...", "--- !!map", "%YAML 1.1\n---", "%TAG ! x\n---", "---\nlora: {r: 8}", "%YAML 2.0\n---"]
    )
    lines.insert(source.choice([0, len(lines), source.randrange(len(lines))]), mark)


def _odd_text(source: Random, lines: Lines) -> None:
    at = source.randrange(len(lines))
    place = source.randrange(len(lines[at]) + 1)
    lines[at] = lines[at][:place] + source.choice(ODD_TEXT) + lines[at][place:]


def _harmless(source: Random, lines: Lines) -> None:
    """Change how it is written and not what it says: such a file must be taken."""
    at = _at_key(source, lines)
    how = source.randrange(4)
    if how == 0:
        lines.insert(at, source.choice(["# a remark", "", "   ", "    # indented"]))
    elif how == 1:
        lines[at] += source.choice(["  # a remark", "   ", " "])
    elif how == 2:
        lines[at] = re.sub(r"^(\s*)(\w+):", r'\1"\2":', lines[at])
    else:
        lines[:] = [f"{line}\r" for line in lines]


_LINES: dict[str, Callable[[Random, Lines], None]] = {
    "a line deleted": _delete_line,
    "a line twice": _double_line,
    "lines swapped": _swap_lines,
    "indented otherwise": _indent,
    "a key mistyped": _mistype_key,
    "another value": _other_value,
    "values swapped": _swap_values,
    "another type": _quote,
    "a key twice": _repeat_key,
    "a key more": _new_key,
    "nested": _nest,
    "an alias": _alias,
    "a merge key": _merge,
    "a document's mark": _document,
    "odd text": _odd_text,
    "written otherwise": _harmless,
}
# The values of keys are where most mistakes are made.
_KINDS = [*BYTES, *_LINES, *["another value"] * 6, *["overrides"] * 8, "a key mistyped"]


@functools.cache
def _shipped() -> tuple[tuple[bytes, bytes], ...]:
    """Return each shipped configuration, as it is and without its comments."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((PROJECT_ROOT / "configs").glob("*.yaml"))]
    bare = ["\n".join(line for line in (_bare(line) for line in text.splitlines()) if line) for text in texts]
    return tuple((text.encode(), short.encode() + b"\n") for text, short in zip(texts, bare, strict=True))


def _bare(line: str) -> str:
    return re.sub(r"(^|\s+)#.*", "", line).rstrip()


def _overridden(source: Random) -> str:
    dotted = source.choice(list(schema.keys()))
    value = source.choice(_VALUES) if source.random() < 0.6 else _near_the_edge(source)
    text = f"{dotted}={value}"
    if source.random() < 0.3:
        place = source.randrange(len(text) + 1)
        text = text[:place] + source.choice(ODD_TEXT) + text[place + source.randint(0, 1) :]
    return text


def make_mutant(source: Random) -> Mutant:
    """Make one: a file's bytes, and as its details the overrides it is read with."""
    whole, bare = source.choice(_shipped())
    raw = whole if source.random() < _WHOLE_SHARE else bare
    kind = source.choice(_KINDS)
    if kind == "overrides":
        return Mutant(kind, raw, tuple(_overridden(source) for _ in range(source.randint(1, 3))))
    if kind in BYTES:
        return Mutant(kind, BYTES[kind](source, raw), ())
    lines = raw.decode().split("\n")
    for _ in range(source.choice([1, 1, 1, 2])):
        _LINES[kind](source, lines)
    return Mutant(kind, "\n".join(lines).encode("utf-8", "surrogatepass"), ())
