from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

from kit.config.error import ConfigError
from kit.config.file import MAX_BYTES
from kit.config.yaml_reader import parse_document, parse_value, plain_scalar, read_document
from kit.config.yaml_writer import scalar


def _refusal(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read_document(path)
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("2E-4", 2e-4),
        ("1.", 1.0),
        (".5", 0.5),
        ("+3", 3),
        ("-1", -1),
        ("0", 0),
        ("4.0", 4.0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("1e999", math.inf),
    ],
)
def test_scalars_are_typed_as_in_yaml_1_2(text: str, value: Any) -> None:
    found = plain_scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_nan_is_read_as_a_number_so_that_the_schema_can_refuse_it() -> None:
    assert math.isnan(plain_scalar(".nan"))


@pytest.mark.parametrize(
    "text",
    [
        "yes",
        "no",
        "on",
        "off",
        "Yes",
        "y",
        "010",
        "0o17",
        "0x1F",
        "0b1",
        "1_000",
        "1:30",
        "2026-11-23",
        "nan",
        "inf",
        "1e",
        "e5",
        "1" * 5000,
    ],
)
def test_what_other_readers_convert_by_surprise_stays_text(text: str) -> None:
    assert plain_scalar(text) == text


def test_keys_carry_their_lines() -> None:
    document = parse_document("# first\nmodel:\n  a: 1\n\n  b: [x,\n    y]\nlora: {r: 2}\n", "c.yaml")
    assert document.values == {"model": {"a": 1, "b": ["x", "y"]}, "lora": {"r": 2}}
    assert document.lines == {("model",): 2, ("model", "a"): 3, ("model", "b"): 5, ("lora",): 7, ("lora", "r"): 7}


def test_quoted_text_stays_text() -> None:
    assert parse_document("""a: "2e-4"\nb: 'true'\nc: |\n  1\n""", "c").values == {"a": "2e-4", "b": "true", "c": "1\n"}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("model:\n\tname: a\n", 2, "indented with a tab"),
        ("a: &x 1\nb: 2\n", 1, "sets an anchor (&x)"),
        ("a: &x 1\nb: *x\n", 2, "uses an alias (*x)"),
        ("b:\n  <<: {r: 1}\n", 2, "merge key"),
        ("a: !!python/object:os.system 1\n", 1, "uses a tag"),
        ("a: !!str 1\n", 1, "uses a tag"),
        ("a: 1\nb: 2\na: 3\n", 3, "a is given twice, first in line 1"),
        ("m:\n  a: 1\n  b: 2\n  a: 3\n", 4, "m.a is given twice, first in line 2"),
        ("a: 1\n---\nb: 2\n", 2, "begins a second document"),
        ("- a\n- b\n", 1, "holds a list"),
        ("just words\n", 1, "holds a single value"),
        ("? [a, b]\n: 1\n", 1, "as a key"),
        ("a: [1, 2\nb: 3\n", 2, "not valid YAML"),
        ('a: "open\n', 2, "not valid YAML"),
        ("a: b: c\n", 1, "not valid YAML"),
        ("a: @b\n", 1, "not valid YAML"),
        ("a: 1\n b: 2\n", 2, "not valid YAML"),
        ("a: [[[[[[[[[1]]]]]]]]]\n", 1, "nests deeper"),
        ("a: 1\nb: \x07\n", 2, "control character U+0007"),
        ('a: "\\uD83D"\n', 1, "half a character"),
        ('"\\uD83D": 1\n', 1, "half a character"),
    ],
)
def test_what_a_configuration_does_not_need_is_refused_at_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_document(text, "c.yaml")
    places = [finding.where for finding in caught.value.findings if words in finding.message]
    assert places == [f"c.yaml:{line}"], str(caught.value)
    assert all(finding.fix for finding in caught.value.findings)
    assert caught.value.exit_code == 1


def test_all_structural_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_document("a: &x 1\nb: *x\nc: 1\nc: 2\nd: !t 3\n", "c")
    assert [finding.id.split(".")[-1] for finding in caught.value.findings] == [
        "anchor",
        "alias",
        "duplicate_key",
        "tag",
    ]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "{}\n", "null\n", "~"])
def test_an_empty_file_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"c\.yaml.*: (is empty|holds a single value)"):
        parse_document(text, "c.yaml")


def test_thousands_of_entries_are_refused_before_they_cost_time() -> None:
    with pytest.raises(ConfigError, match="more than 1,000 entries"):
        parse_document("".join(f"k{number}: 1\n" for number in range(1200)), "c")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"a: \xff\n", ":1: is not UTF-8 text: byte 0xff"),
        ("a: é\n".encode("latin-1"), "is not UTF-8 text"),
        ("a: 1\n".encode("utf-16"), "is UTF-16 or UTF-32 text"),
        ("a: 1\n".encode("utf-32"), "is UTF-16 or UTF-32 text"),
        (b"a: 1\nb: \0\n", ":2: contains a NUL byte"),
        (b"#" * (MAX_BYTES + 1), "larger than 1,000,000 bytes"),
    ],
)
def test_bytes_that_are_no_configuration_are_refused(tmp_path: Path, raw: bytes, words: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(raw)
    refusal = _refusal(path)
    assert words in str(refusal)
    assert refusal.exit_code == 2


@pytest.mark.parametrize("raw", [b"\xef\xbb\xbfa: 1\n", b"a: 1\r\n", b"a: 1", b"--- \na: 1\n...\n"])
def test_what_editors_add_is_accepted(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(raw)
    assert read_document(path).values == {"a": 1}


def test_a_missing_file_names_the_nearest_one_beside_it(tmp_path: Path) -> None:
    (tmp_path / "training.yaml").touch()
    refusal = _refusal(tmp_path / "trainin.yaml")
    assert "does not exist" in str(refusal)
    assert f"did you mean {tmp_path / 'training.yaml'}?" in str(refusal)
    assert refusal.exit_code == 2


def test_a_directory_is_refused_with_a_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").touch()
    assert f"is a directory, not a file; fix: name a file in it, such as {tmp_path / 'c.yaml'}" in str(
        _refusal(tmp_path)
    )


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "c.yaml")
    assert "is a pipe, a socket or a device" in str(_refusal(tmp_path / "c.yaml"))


def test_a_device_is_refused() -> None:
    assert "is a pipe, a socket or a device" in str(_refusal(Path("/dev/zero")))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").touch(mode=0)
    assert "is not readable by this user" in str(_refusal(tmp_path / "c.yaml"))


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "missing/c.yaml"])
def test_a_path_no_file_could_have_is_refused(name: str) -> None:
    assert _refusal(Path(name)).exit_code == 2


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").symlink_to(tmp_path / "c.yaml")
    assert "cannot be read" in str(_refusal(tmp_path / "c.yaml"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("[a, 'b c', 3]", ["a", "b c", 3]),
        ('"2e-4"', "2e-4"),
        ("data/my file: x #1.jsonl", "data/my file: x #1.jsonl"),
        (" null ", None),
        ("@a", "@a"),
        ("*a", "*a"),
    ],
)
def test_an_override_is_one_scalar_to_its_end(text: str, value: Any) -> None:
    assert parse_value(text, "command line") == value


@pytest.mark.parametrize("text", ["[a", "'a", '"a', "[a] b", "[&x 1, *x]", "[!t 1]", "'a'\nb: 1"])
def test_a_broken_override_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="command line: "):
        parse_value(text, "command line")


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -1,
        2e-4,
        1e-5,
        1e22,
        0.1,
        "a",
        "yes",
        "1e5",
        "010",
        "",
        "null",
        "a: b",
        "# a",
        "~",
        "é\t",
        "a/b-c_d.e",
        ["q", "1"],
    ],
)
def test_written_values_read_back(value: Any) -> None:
    assert parse_document(f"a: {scalar(value)}", "c").values["a"] == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a, *a]\n" for n in range(300)), "sets an anchor"),
        ("a: &a\n  b: *a\n", "sets an anchor"),
        ("a: " + "[" * 300_000, "nests deeper than 8 levels"),
        ("a: [" + "1," * 300_000, "more than 1,000 entries"),
        ("".join(f"k{n}: 1\n" for n in range(50_000)), "more than 1,000 entries"),
        ("a: " + "9" * 300_000, "a string of 300,000 characters"),
        ("? " + "x" * 20_000 + "\n: 1", "a string of 20,000 characters"),
        ("a: !!python/object/apply:os.system [id]\n", "uses a tag"),
    ],
    ids=["laughs", "itself", "deep", "long list", "many keys", "number", "key", "python"],
)
def test_what_would_take_memory_time_or_control_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_document(text, "c.yaml")
    assert words in raised.value.findings[0].message
    assert len(raised.value.findings) <= 50


def test_a_mapping_a_receipt_may_hold_is_written_in_flow_style() -> None:
    assert scalar([{"a": [1, None]}, {}]) == "[{a: [1, null]}, {}]"
