"""Every column type of a table is read, or refused if it is used; none ends in a traceback."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from kit.data.conversations import RowProblem
from kit.data.shapes import shape_row
from kit.data.turns import RowError
from kit.intake import tables
from kit.intake.tables import read_parquet, rows_of
from kit.intake.unpack import FileError

if TYPE_CHECKING:
    from pathlib import Path

FAR = {"s": 2**62, "ms": 2**62, "us": 2**62, "ns": 2**63 - 1}
TEXT = pa.array(["tell"])


def _of(value: Any, kind: Any) -> Any:
    return pa.array([value], kind)


ARRAYS: dict[str, Any] = {
    **{
        f"timestamp {unit} {zone}": pa.array([far]).cast(pa.timestamp(unit, zone))
        for unit, far in FAR.items()
        for zone in (None, "UTC", "+01:00", "No/Where")
    },
    **{f"duration {unit}": pa.array([far]).cast(pa.duration(unit)) for unit, far in FAR.items()},
    **{f"{name}": pa.array([2**31 - 1], pa.int32()).cast(getattr(pa, name)()) for name in ("date32",)},
    "date64": pa.array([2**62]).cast(pa.date64(), safe=False),
    **{f"time32 {unit}": _of(1, pa.int32()).cast(pa.time32(unit)) for unit in ("s", "ms")},
    **{f"time64 {unit}": pa.array([2**62]).cast(pa.time64(unit)) for unit in ("us", "ns")},
    **{name: _of(1, getattr(pa, name)()) for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")},
    "uint64": _of(2**64 - 1, pa.uint64()),
    **{f"{name} {value}": _of(value, getattr(pa, name)()) for name in ("float16", "float32", "float64") for value in (
        float("nan"), float("inf"), 1.5
    )},
    "bool": _of(True, pa.bool_()),
    "null": _of(None, pa.null()),
    "decimal128": _of(10**20, pa.decimal128(38, 2)),
    "decimal256": _of(10**60, pa.decimal256(76, 2)),
    **{name: _of("text", getattr(pa, name)()) for name in ("string", "large_string", "string_view")},
    **{name: _of(b"\xff", getattr(pa, name)()) for name in ("binary", "large_binary", "binary_view")},
    "fixed_size_binary": _of(b"ab", pa.binary(2)),
    "dictionary": _of("text", pa.string()).dictionary_encode(),
    **{name: _of(["a"], getattr(pa, name)(pa.string())) for name in ("list_", "large_list", "list_view")},
    "large_list_view": _of(["a"], pa.large_list_view(pa.string())),
    "fixed_size_list": _of(["a", "b"], pa.list_(pa.string(), 2)),
    "map": _of([("a", 1)], pa.map_(pa.string(), pa.int64())),
    "struct": _of({"a": 1}, pa.struct({"a": pa.int64()})),
    "struct of one name twice": pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]),
    "list of far times": pa.array([[2**62]]).cast(pa.list_(pa.timestamp("s"))),
    "sparse union": pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array(["a"])]),
    "dense union": pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array(["a"])]),
    "run_end_encoded": pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array(["a"])),
    "month_day_nano_interval": _of((1, 2, 3), pa.month_day_nano_interval()),
    "uuid": pa.array([b"0" * 16], pa.uuid()),
    "json": pa.array(["{}"], pa.json_()),
    "bool8": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8())),
    "opaque": pa.ExtensionArray.from_storage(pa.opaque(pa.int8(), "a", "b"), pa.array([1], pa.int8())),
    "fixed_shape_tensor": pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.int8(), [2]), pa.array([[1, 2]], pa.list_(pa.int8(), 2))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_a_column_of_any_type_is_left_out_or_taken_or_refused(name: str, tmp_path: Path) -> None:
    beside = pa.record_batch([pa.array(["ask"]), TEXT, ARRAYS[name]], ["prompt", "completion", "when"])
    used = pa.record_batch([ARRAYS[name], TEXT], ["prompt", "completion"])
    for batch in (beside, used):
        _judge([*rows_of(batch, 1)], is_used=batch is used)
        try:
            parquet.write_table(pa.Table.from_batches([batch]), tmp_path / "a.parquet")
        except pa.ArrowException:
            continue  # a type that Parquet does not hold
        _judge([*read_parquet(str(tmp_path / "a.parquet"))], is_used=batch is used)


def _judge(rows: list[Any], *, is_used: bool) -> None:
    ((number, row),) = rows
    assert number == 1
    if not is_used:
        assert shape_row(row).messages[-1].content == "tell"
    elif not isinstance(row["prompt"], str):
        with pytest.raises(RowError, match="prompt"):
            shape_row(row)


def test_every_type_that_pyarrow_makes_is_tried() -> None:
    made = {str(array.type).split("[")[0].split("(")[0].split("<")[0] for array in ARRAYS.values()}
    assert len(made) >= 40


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table([TEXT, TEXT, TEXT], ["prompt", "completion", "prompt"]), tmp_path / "a.parquet")
    with pytest.raises(FileError, match="two columns named 'prompt'"):
        list(read_parquet(str(tmp_path / "a.parquet")))


def test_a_column_that_repeats_one_text_for_ever_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_GROWTH_COUNTS_FROM", 1 << 20)
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 5_000, pa.int32()), pa.array(["x" * 10_000]))
    parquet.write_table(pa.table({"prompt": ["a"] * 5_000, "big": text}), tmp_path / "a.parquet")
    read: list[Any] = []
    with pytest.raises(FileError, match="unpacks to more than 200 times its size"):
        read.extend(read_parquet(str(tmp_path / "a.parquet")))
    assert 0 < len(read) < 1_000


def test_a_value_that_every_row_uses_is_not_held_for_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONGEST_ROW_BYTES", 1000)
    rows = ["x" * 2000] * 500 + ["y"]
    parquet.write_table(pa.table({"prompt": rows, "completion": rows}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 20_000
    sizes = []
    real = tables.rows_of

    def measured(batch: Any, number: int) -> Any:
        sizes.append(batch.nbytes)
        return real(batch, number)

    monkeypatch.setattr(tables, "rows_of", measured)
    *long, last = read_parquet(str(tmp_path / "a.parquet"))
    assert {problem.message for problem in long if isinstance(problem, RowProblem)} == {"is longer than 32 MB"}
    assert last == (501, {"prompt": "y", "completion": "y"})
    assert max(sizes) < 100_000


@pytest.mark.parametrize("text", ["a,b\n" + "x" * 1_000_000, 'a,b\n"1' + '","\n' * 250_000])
def test_a_row_of_csv_is_not_read_beyond_what_a_row_may_be(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONGEST_ROW_BYTES", 1000)
    file = io.BytesIO(text.encode())
    with pytest.raises(FileError):
        list(tables.read_csv(file))
    assert file.tell() < 50_000


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["x" * (20 << 20)]),
        pa.ListArray.from_arrays(pa.array([0, 20 << 20], pa.int32()), pa.nulls(20 << 20, pa.int8()).fill_null(0)),
    ],
    ids=["text", "numbers"],
)
def test_one_value_that_is_packed_to_nothing_is_not_unpacked(column: Any, tmp_path: Path) -> None:
    parquet.write_table(pa.table([["a"], column], ["prompt", "big"]), tmp_path / "a.parquet", compression="zstd")
    before = pa.total_allocated_bytes()
    with pytest.raises(FileError, match="unpacks to more than 60 times its size"):
        next(read_parquet(str(tmp_path / "a.parquet")))
    assert pa.total_allocated_bytes() - before < 1 << 20


def test_each_column_is_not_compared_with_each_other() -> None:
    compared: list[str] = []

    class Name(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            compared.append(self)
            return str.__eq__(self, other)  # type: ignore[arg-type]

    assert tables._twice([Name(number % 2990) for number in range(3000)]) == sorted(map(str, range(10)))
    assert len(compared) < 30_000
