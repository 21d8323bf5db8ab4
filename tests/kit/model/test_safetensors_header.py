"""A safetensors file that is not whole is found by its header, before a byte of its tensors is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kit.model.files import ModelFileError
from kit.model.safetensors_header import Header, TensorHeader, read_header
from small_base import tensor, write_safetensors

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_safetensors(tmp_path / "x.safetensors", {"a": tensor((2, 3)), "b": tensor((4,), "F32")})
    return tmp_path / "x.safetensors"


def test_a_whole_file_says_what_it_holds(path: Path) -> None:
    begin = path.stat().st_size - 28
    tensors = {
        "a": TensorHeader("BF16", (2, 3), begin, begin + 12),
        "b": TensorHeader("F32", (4,), begin + 12, begin + 28),
    }
    assert read_header(path) == Header(tensors, "pt")


def test_a_file_of_the_library_is_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the libraries: make setup")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(3, 2), "s": torch.tensor(1.0)}, tmp_path / "x", metadata={"format": "pt"})
    assert {name: (said.dtype, said.shape) for name, said in read_header(tmp_path / "x").tensors.items()} == {
        "x": ("F32", (3, 2)),
        "s": ("F32", ()),
    }


def test_a_file_cut_anywhere_is_not_whole(path: Path) -> None:
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ModelFileError, match="is not a complete safetensors file"):
            read_header(path)


def test_bytes_behind_the_last_tensor_are_not_part_of_it(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ModelFileError, match="bytes, but its header describes"):
        read_header(path)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ([], "not a JSON object"),
        ({"a": 3}, "has the dtype None"),
        ({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, "has the dtype 'F4'"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}, "offsets that do not match"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, "no shape or no offsets"),
        ({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, "no shape or no offsets"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, "does not begin where"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
          "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, "does not begin where"),
        ({"a": {"dtype": "F32", "shape": [10**18, 10**18], "data_offsets": [0, 4]}}, "offsets that do not match"),
    ],
)  # fmt: skip
def test_a_header_that_contradicts_itself_is_refused(tmp_path: Path, header: object, words: str) -> None:
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 8)
    with pytest.raises(ModelFileError, match=words):
        read_header(path)


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    entry = json.dumps({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]})
    text = f'{{"a": {entry}, "a": {entry}}}'.encode()
    (tmp_path / "x").write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 4)
    with pytest.raises(ModelFileError, match="is not a complete safetensors file"):
        read_header(tmp_path / "x")


def test_what_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for content in (b"", b"PK\x03\x04pickled", b"\xff" * 64, (3).to_bytes(8, "little") + b"[[[", b"\0" * 100):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match="is not a complete safetensors file"):
            read_header(path)
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_header(tmp_path / "none")
