"""Runs what is measured, each in a process of its own, which may run out of memory or patch its libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.bench.peers import write_job
from kit.bench.variants import SCALES
from kit.interpreter import python_path

if TYPE_CHECKING:
    from kit.bench.peers import Peer

OUT_OF_MEMORY = "out of memory"
_LIMIT = 300  # seconds for one variant on one workload


class Bench:
    """Runs variants and peers one after the other; a failure is a row that says why."""

    def __init__(self, scale: str, device: str, base: Path) -> None:
        """Measure at ``scale`` on ``device``, with the random base in ``base``."""
        self.scale, self.device, self.base = scale, device, base
        self.broken = False

    def child(self, variant: str, workload: str = "", *, profile: bool = False) -> dict[str, Any]:
        """Measure one of the kit's variants, or trl."""
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.json"
            spec = {
                "variant": variant,
                "workload": workload,
                "scale": self.scale,
                "device": self.device,
                "base": str(self.base),
                "profile": profile,
                "result": str(result),
            }
            (Path(folder) / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
            command = [sys.executable, "-m", "kit.bench.one_row", f"{folder}/spec.json"]
            found = self._run(command, result, cwd=Path.cwd())
        return {"variant": variant, "workload": workload, **found}

    def peer(self, peer: Peer, python: str, workload: str) -> dict[str, Any]:
        """Measure somebody else's trainer with its own environment's Python."""
        with tempfile.TemporaryDirectory() as folder:
            job, result = write_job(peer, workload, SCALES[self.scale], self.base, Path(folder))
            # It may write where it stands.
            found = self._run([python, str(peer.program), str(job)], result, cwd=Path(folder))
        return {"variant": peer.name, "workload": workload, **found}

    def _run(self, command: list[str], result: Path, cwd: Path) -> dict[str, Any]:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        if command[0] == sys.executable:
            environment["PYTHONPATH"] = python_path()
        try:
            done = subprocess.run(
                command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=_LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            self.broken = True
            return {"failed": f"stopped after {_LIMIT} s"}
        if done.returncode == 0:
            return dict(json.loads(result.read_text(encoding="utf-8")))
        if "OutOfMemoryError" in done.stderr:
            return {"failed": OUT_OF_MEMORY}
        self.broken = True
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"failed": reason[:200]}
