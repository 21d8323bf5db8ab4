"""Merge a run's adapter into its base: one safetensors model that needs no peft.

Run as:
    python scripts/kit merge                                       the newest run      (or: make merge)
    python scripts/kit merge outputs/demo --out models/demo-merged (or: make merge RUN=demo OUT=models/demo-merged)

Writes to RUN/merged by default: the weights shard by shard in bfloat16, the base's own tokenizer files, a
model card, merge.json. Then compares each value with the base's plus peft's update, and the logits with those of
base + adapter on validation rows; a model that fails is deleted.
Exit codes: 0 merged, 1 no room, or the comparison failed, 2 wrong use, 130 stopped; no partial model is left.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from kit.cli.console import paint, say
from kit.cli.quiet_libraries import quiet_imports
from kit.cli.screen import one_line
from kit.data.dataset import load_file
from kit.data.end_tokens import declare_ends
from kit.files.digest import file_sha256
from kit.files.json_files import write_json
from kit.files.own_files import FolderClaim, put_back, take_place
from kit.run_directory.history import RunError
from kit.run_directory.names import ADAPTER_WEIGHTS, CARD, MERGE_STAMP, MERGED, merged_files
from kit.stacks.stack import installed_stack
from kit.use.endings import carry_out
from kit.use.loading import LoadChoice, add_run_arguments, choose
from kit.use.merged_card import render_merged_card

if TYPE_CHECKING:
    import argparse

    from kit.data.encoding import EncodedRow
    from kit.use.merge_check import Checked
    from kit.use.merging import AdapterWeights

SCHEMA_VERSION = 1
DTYPES = ("bfloat16", "float16", "float32")


def run(options: argparse.Namespace) -> int:
    options.unquantised = True

    def work() -> int:
        choice = choose(options, installed_stack())
        out = _place(options, choice)
        out.parent.mkdir(parents=True, exist_ok=True)
        claim = FolderClaim(out)
        if not claim.acquire():
            raise RunError(f"{out}: another command is writing to it; wait for it, or name another: --out FOLDER")
        try:
            put_back(out, merged_files)
            return _merge(options, choice, _place(options, choice))
        finally:
            claim.release()

    fix = "use --cpu if there is more memory, or skip the comparison: --no-check"
    return carry_out(work, stopped="stopped; nothing was written", when_memory_runs_out=fix)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser, quantised=False)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="directory of the merged model; default: RUN/merged")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="dtype of the weights (bfloat16)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier merged model there")
    parser.add_argument("--data", type=Path, metavar="FILE", help="rows to compare on; default: the validation rows")
    parser.add_argument("--no-check", action="store_true", help="do not load and compare the merged model")


def _place(options: argparse.Namespace, choice: LoadChoice) -> Path:
    out: Path = (options.out or choice.run.folder / MERGED).expanduser()
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return out
    if not (out / MERGE_STAMP).is_file():
        raise RunError(f"{out}: exists and is not a merged model; name another: --out FOLDER")
    if not options.overwrite:
        raise RunError(
            f"{out}: already holds a merged model; replace it with --overwrite, or name another: --out FOLDER"
        )
    return out


def _merge(options: argparse.Namespace, choice: LoadChoice, out: Path) -> int:
    with quiet_imports():
        from kit.use.merge_check import check_merged, say_checked
        from kit.use.merging import copy_the_rest, find_base, read_adapter, room_needed, write_merged

    model = choice.settings.model
    say(f"{choice.run.name}: {choice.adapter} into {choice.base_name}, as {options.dtype}", "bold")
    if choice.run.settings.quantization.load_in_4bit:
        say(
            "note: the adapter was trained on the base in 4 bits and is merged into the base as it is; "
            "its answers are close to those in training, but not identical",
            "yellow",
        )
    rows = [] if options.no_check else _rows(options, choice)
    base = find_base(model.model_name_or_path, model.revision, download=True)
    adapter = read_adapter(choice.adapter, base)
    needed, free = room_needed(base, options.dtype), shutil.disk_usage(out.parent).free
    if needed > free:
        say(f"error: {out.parent}: {_size(needed)} needed, {_size(free)} free", "red")
        say("  fix: free some space, or name another disk: --out FOLDER")
        return 1
    aside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        copy_the_rest(model.model_name_or_path, model.revision, aside, options.dtype, download=True)
        declare_ends(aside, choice.tokenizer.end_token_ids)
        size = base.bytes_as(options.dtype)
        with tqdm(
            total=size, unit="B", unit_scale=True, desc="merging", leave=False, disable=not sys.stderr.isatty()
        ) as bar:
            write_merged(base, adapter, aside, options.dtype, bar.update)
        checked = check_merged(choice, base, aside, options.dtype, rows) if rows else None
        if checked and not checked.is_right:
            say_checked(checked, choice, options.dtype)
            say("error: the merged model differs from base + adapter and was not kept", "red", "bold")
            say("  fix: use --dtype float32; if that fails too, report it as a bug")
            return 1
        (aside / CARD).write_text(render_merged_card(choice, options.dtype, checked), encoding="utf-8")
        write_json(aside / MERGE_STAMP, _facts(choice, options.dtype, adapter, checked))
        _place(options, choice)  # minutes have passed: check again
        take_place(aside, out, merged_files)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if checked:  # after the model is in place: nobody may read this
        say_checked(checked, choice, options.dtype)
    files = "1 file" if len(base.shards) == 1 else f"{len(base.shards)} files"
    print(
        f"{paint('merged', 'green', 'bold', stream=sys.stdout)}: {one_line(out)} ({_size(size)} in {files})"
        f"\nnext: docs/USING_ADAPTERS.md for transformers, vLLM and llama.cpp"
    )
    return 0


def _rows(options: argparse.Namespace, choice: LoadChoice) -> list[EncodedRow]:
    from kit.use.comparison import ROWS

    data = choice.settings.data
    path = Path(options.data or data.val_file or data.train_file).expanduser()
    if not path.is_file():
        raise RunError(f"{path}: no such file to compare on; name one: --data FILE, or skip it: --no-check")
    rows = load_file(path, choice.tokenizer, choice.settings.training.max_seq_length).rows[:ROWS]
    if not rows:
        raise RunError(f"{path}: has no row to compare on; name another: --data FILE, or skip it: --no-check")
    return list(rows)


def _facts(choice: LoadChoice, dtype: str, adapter: AdapterWeights, checked: Checked | None) -> dict[str, Any]:
    model = choice.settings.model
    return {
        "schema_version": SCHEMA_VERSION,
        "run": choice.run.name,
        "merged_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "base_model": model.model_name_or_path,
        "base_revision": model.revision,
        "adapter": {"folder": str(choice.adapter), "sha256": file_sha256(choice.adapter / ADAPTER_WEIGHTS)},
        "merged_matrices": len(adapter.pairs),
        "replaced_tensors": sorted(adapter.replaced),
        "dtype": dtype,
        "weights": asdict(checked.weights) if checked else None,
        "comparison": asdict(checked.comparison) if checked and checked.comparison else None,
    }


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"  # noqa: PLR2004 - a gigabyte
