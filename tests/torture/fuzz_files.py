"""A finished run whose files were damaged: everything that reads runs works or says why not, and nothing is trusted.

Whatever was changed, ``verify`` names it. A damaged checkpoint is never gone on with.
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.cli.findings import has_errors
from kit.report.contents import gather
from kit.report.write import write_report
from kit.run_directory import checkpoints
from kit.run_directory.history import RunError, find_run, read_run
from kit.run_directory.metrics_tail import MetricsTail
from kit.run_directory.names import METRICS
from kit.run_directory.receipt import Receipt, read_receipt
from kit.runs.comparison import compare_runs
from kit.runs.summary import summarise
from kit.runs.table import SORT_KEYS, as_data, sort_runs, table_of
from kit.runs.terminal_view import RunProgress, figures, plain_line
from kit.runs.verify import verify
from kit.train.resume import decide
from torture.damage import BYTES
from torture.fuzzing import FaultError, Mutant, scratch

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from kit.cli.findings import Finding

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 10**18, 10**400, 0.5, -1e308, 1e308, "", "text", "\x1b[31m", "\n", "\ud800", [], [1],
    [None], ["x"], {}, {"a": 1}, [[]], [{}], "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "../..", "\x00",
)  # fmt: skip
_GONE, _OTHERS = "gone", "of another checkpoint"
_REPORTS = 0.02  # share of the mutants a whole report is written of: a second each
Chosen = tuple[str, bytes | None]  # a file of the run, and what it holds now; None for nothing


@dataclass(frozen=True)
class FileFuzzer:
    """Damaged files of one finished run; see ``torture.fuzzing.Fuzzer``.

    Attributes:
        run: Its folder, which is left as it is.
    """

    run: Path
    name: str = "files"
    suffix: str = ".bin"

    def mutant(self, source: Random) -> Mutant:
        """Damage one file."""
        files = _files(self.run)
        kinds = {name: [one for one in files if one.startswith(name)] for name in ("checkpoints", "adapter")}
        kind = source.choice(["run.json"] * 4 + [METRICS] * 2 + ["checkpoints"] * 3 + ["adapter"])
        name = source.choice(kinds.get(kind, [kind]))
        raw = files[name]
        how = source.choice([*BYTES, _GONE, *([_OTHERS] if kind == "checkpoints" else [])])
        content: bytes | None = raw
        if kind in {"run.json", METRICS} and source.random() < 0.6:
            how = "another value"
            content = _receipt_with(source, raw) if kind == "run.json" else _metrics_with(source, raw)
        elif how == _GONE:
            content = None
        elif how == _OTHERS:
            content = files[source.choice([one for one in kinds[kind] if one != name])]
        elif raw:
            content = BYTES[how](source, raw)
        return Mutant(f"{kind}: {how}", content or b"", (name, content, source.random()))

    def judge(self, mutant: Mutant) -> dict[str, int]:
        """Let everything that reads runs read it; see ``Fuzzer``."""
        name, content, chance = mutant.details
        folder = _copy(self.run)
        original = _files(self.run)[name]
        if content == original:
            return {"unchanged": 1}
        path = folder / name
        try:
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content)
            outcome = _read_all(folder, whole=chance < _REPORTS)
            _check_verify(folder, name)
            _check_resume(folder, name, _identity(self.run))
        finally:
            path.write_bytes(original)
        return {outcome: 1}


@functools.cache
def _files(run: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(run.rglob("*")) if path.is_file()]
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


@functools.cache
def _copy(run: Path) -> Path:
    """Return a copy of the run for this process to damage, gone with the process."""
    return Path(shutil.copytree(run, scratch("fuzz-files-") / "outputs" / "run"))


@functools.cache
def _identity(run: Path) -> dict[str, Any]:
    found, _ = checkpoints.newest(run / "checkpoints")
    if found is None:
        raise ValueError(f"{run}: holds no checkpoint to damage")
    return dict(found.facts["identity"])


def _places(node: Any) -> list[tuple[Any, Any]]:
    if not isinstance(node, dict | list):
        return []
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    return [(node, key) for key in keys] + [place for key in keys for place in _places(node[key])]


def _change(source: Random, node: Any) -> None:
    places = _places(node)
    # The top is what readers look at; most places are versions of packages.
    container, key = source.choice(places if source.random() < 0.6 else [(node, key) for key in node])
    if source.random() < 0.2:
        del container[key]
    else:
        container[key] = source.choice(_VALUES)


def _receipt_with(source: Random, raw: bytes) -> bytes:
    receipt = json.loads(raw)
    for _ in range(source.choice([1, 1, 2, 5])):
        _change(source, receipt)
    if source.random() < 0.02:
        receipt = source.choice(_VALUES)
    return json.dumps(receipt, indent=2).encode()


def _metrics_with(source: Random, raw: bytes) -> bytes:
    lines = raw.splitlines()
    at = source.randrange(len(lines))
    line = json.loads(lines[at])
    _change(source, line)
    deep = b"[" * 5_000
    changed = source.choice([json.dumps(line).encode()] * 8 + [b"", b"[]", deep, b'{"step": 1}'])
    lines[at : at + 1] = source.choice([[changed], [changed, lines[at]]])
    return b"\n".join(lines) + b"\n"


def _read_all(folder: Path, *, whole: bool) -> str:
    """Read the run in every way there is; return whether it can be read."""
    readers: list[Callable[[], object]] = [
        lambda: _listed(folder),
        lambda: compare_runs(read_run(folder), read_run(folder)),
        lambda: read_run(find_run(str(folder))).settings,
        lambda: read_run(folder).adapter,
        lambda: _watched(folder),
        lambda: write_report(folder) if whole else gather(folder),
    ]
    outcome = "read"
    try:
        for reader in readers:
            try:
                reader()
            except RunError as exc:
                outcome = "refused"
                said, _, fix = str(exc).rpartition("; ")
                if not (said and fix and len(str(exc).splitlines()) == 1):
                    raise FaultError(f"refused without words or fix, or in several lines: {exc!s:.200}") from exc
    finally:
        for name in ("report.html", "report.png"):
            (folder / name).unlink(missing_ok=True)
    return outcome


def _listed(folder: Path) -> None:
    runs = [summarise(read_run(folder))] * 2
    for key in SORT_KEYS:
        sort_runs(runs, key)
    table_of(runs, 100)
    json.dumps([as_data(run) for run in runs], allow_nan=False)


def _watched(folder: Path) -> None:
    run = read_run(folder)
    course = RunProgress()
    planned = run.receipt.get("steps")
    course.planned_steps = planned if isinstance(planned, int) else None
    lines, _ = MetricsTail(folder / METRICS).read()
    course.add(lines)
    plain_line(course), figures(course)


def _check_verify(folder: Path, name: str) -> None:
    findings = verify(folder)
    _no_crash(findings)
    if not has_errors(findings):
        raise FaultError(f"verify finds nothing wrong, and {name} was changed")
    place = "run.json" if name == "run.json" else str(Path(name).parent) if name.startswith("checkpoints") else name
    # A receipt that was changed, or is gone, may be all there is to say.
    if name != "run.json" and not any(one.severity == "error" and place in one.where for one in findings):
        raise FaultError(f"verify does not name {name}: {[one.where for one in findings if one.severity == 'error']}")


def _check_resume(folder: Path, name: str, identity: dict[str, Any]) -> None:
    damaged = folder / Path(name).parent if name.startswith("checkpoints") else None
    for how in ("auto", str(folder), *([str(damaged)] if damaged else [])):
        start = decide(how, folder, identity, ())
        _no_crash(start.findings)
        if start.checkpoint is not None and damaged == start.checkpoint.folder:
            raise FaultError(f"goes on with {damaged.name}, whose {Path(name).name} was changed")
    if name == "run.json":
        with tempfile.TemporaryDirectory() as place:
            Receipt(Path(place), earlier=read_receipt(folder), from_step=2).finish("interrupted")


def _no_crash(findings: list[Finding]) -> None:
    for finding in findings:
        if finding.id.endswith(".crashed"):
            raise FaultError(f"a check crashed: {finding.message}")
        if finding.severity == "error" and not (finding.message and finding.fix and finding.where):
            raise FaultError(f"a finding without message, fix or place: {finding!r:.200}")
