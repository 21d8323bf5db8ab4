"""Import the stack and test the device, stage by stage, in a process that may crash.

Started by ``kit.environment.probe``: ``device_probe.py [--device auto|cuda|mps|cpu]``. Each stage reports its start and
its end as one JSON line on stderr after ``STAGE_PREFIX``, so that the parent knows where a segfault or a hang happened;
stdout gets one JSON object at the end.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA_VERSION = 1
STAGE_PREFIX = "stage: "
# What the kit uses of each package: they import lazily, so `import trl` alone proves nothing. Ordered by dependency, so
# that an error is reported for the package it comes from.
IMPORTS: dict[str, tuple[tuple[str, str], ...]] = {
    "torch": (("torch", "Tensor"),),
    "accelerate": (("accelerate", "Accelerator"),),
    "bitsandbytes": (("bitsandbytes.nn", "Linear4bit"),),
    "flash_attn": (("flash_attn", "flash_attn_func"),),
    "transformers": (
        ("transformers", "Trainer"),
        ("transformers", "BitsAndBytesConfig"),
        ("transformers.models.mistral.modeling_mistral", "MistralForCausalLM"),
    ),
    "peft": (("peft", "LoraConfig"), ("peft", "get_peft_model")),
    "trl": (("trl", "SFTTrainer"),),
}
_OPTIONAL = ("flash_attn",)

Outcome = tuple[str, dict[str, Any]]


class Skip(Exception):  # noqa: N818 - not an error: the stage does not apply here
    """Raised by a stage that does not apply, with the reason."""


class Stages:
    """Runs stages and reports each start and end at once."""

    def __init__(self) -> None:
        """Begin with nothing done."""
        self.done: list[dict[str, Any]] = []

    def run(self, name: str, work: Callable[[], Outcome]) -> bool:
        """Run one stage; return whether it succeeded. An error is its outcome and stops only this stage."""
        self._report({"name": name, "outcome": "started"})
        begin = time.monotonic()
        facts: dict[str, Any] = {}
        try:
            detail, facts = work()
            outcome = "ok"
        except Skip as reason:
            outcome, detail = "skipped", str(reason)
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - whatever a library raises is the finding
            outcome, detail = "failed", one_line(exc)
        stage = {
            "name": name,
            "outcome": outcome,
            "seconds": round(time.monotonic() - begin, 2),
            "detail": detail,
            "facts": facts,
        }
        self.done.append(stage)
        self._report(stage)
        return outcome == "ok"

    @staticmethod
    def _report(stage: dict[str, Any]) -> None:
        # One write: a library's thread must not split the line.
        os.write(2, f"\n{STAGE_PREFIX}{json.dumps(stage)}\n".encode())


def one_line(exc: BaseException) -> str:
    """Return an exception's kind and printable text on one line of at most 400 characters."""
    text = "".join(character if character.isprintable() else " " for character in f"{type(exc).__name__}: {exc}")
    return " ".join(text.split())[:400]


def import_package(name: str) -> Outcome:
    """Import what the kit uses of a package; return its version and facts."""
    # flash-attn-4 alone installs a folder of that name without the module.
    if name in _OPTIONAL and getattr(importlib.util.find_spec(name), "origin", None) is None:
        raise Skip("not installed")
    for module, attribute in IMPORTS[name]:
        getattr(importlib.import_module(module), attribute)
    version = str(getattr(sys.modules[name], "__version__", ""))
    facts: dict[str, Any] = {}
    if name == "transformers":
        facts["transformers_sees_torch"] = bool(sys.modules["transformers"].utils.is_torch_available())
    if name == "bitsandbytes":
        facts["bitsandbytes_library"] = native_library()
    return version, facts


def native_library() -> str:
    """Return the native library that bitsandbytes loaded, or ``none:`` with its error.

    bitsandbytes < 0.43 keeps the ``ctypes.CDLL`` itself in ``cextension.lib``; later ones wrap it, or after a failure
    keep a mock with an ``error_msg``. Read from ``vars``, since the mock has any attribute.
    """
    library = importlib.import_module("bitsandbytes.cextension").lib
    attributes = vars(library) if library is not None else {}
    handle = attributes.get("_lib", library)
    path = vars(handle).get("_name") if handle is not None and hasattr(handle, "__dict__") else None
    if path:
        return Path(str(path)).name
    return f"none: {attributes.get('error_msg', 'no library could be loaded')}".splitlines()[0]


def choose_device(asked: str) -> str:
    """Return ``cuda``, ``mps`` or ``cpu``: as asked, or the best available."""
    import torch

    if asked != "auto":
        return asked
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_facts(device: str) -> Outcome:
    """Return torch's build and the devices it sees."""
    import torch

    from kit.environment import device_work

    facts: dict[str, Any] = {
        "device": device,
        "cuda_version": torch.version.cuda,
        "cuda_available": torch.cuda.is_available(),
        "cudnn_version": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        "mps_built": torch.backends.mps.is_built(),
        "mps_available": torch.backends.mps.is_available(),
        "bf16_supported": device_work.compute_dtype(device) != torch.float16,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else device,
    }
    return f"{facts['device_name']}", facts


def probe(asked: str) -> list[dict[str, Any]]:
    """Run every stage that applies, in order."""
    stages = Stages()
    imported = {"torch": stages.run("import torch", functools.partial(import_package, "torch"))}
    if not imported["torch"]:
        return stages.done
    device = choose_device(asked)
    sees_device = stages.run("device facts", lambda: device_facts(device))
    for name in IMPORTS:
        if name != "torch":
            imported[name] = stages.run(f"import {name}", functools.partial(import_package, name))
    if not sees_device:
        return stages.done

    from kit.environment import device_work
    from kit.stacks.stack import installed_stack

    platform = "m4" if device == "mps" else device
    four_bit = imported["bitsandbytes"] and platform in installed_stack().traits.four_bit_platforms
    stages.run("train step", lambda: device_work.train_step(device, four_bit=four_bit))
    if device == "cuda":
        stages.run("bf16 matmul", lambda: device_work.bf16_matmul(device))
        if imported["flash_attn"]:
            stages.run("flash attention", lambda: device_work.flash_attention(device))
    if device == "mps":
        stages.run("causal attention", lambda: device_work.causal_attention(device))
        stages.run("transposed matmul", lambda: device_work.transposed_matmul(device))
    return stages.done


def main(argv: list[str] | None = None) -> int:
    """Probe, and print one JSON object; the libraries' output goes to stderr."""
    parser = argparse.ArgumentParser(description="test the device; started by environment validation")
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    parser.add_argument("--at-most", type=int, default=0, metavar="SECONDS", help="end after this long; 0 is never")
    arguments = parser.parse_args(argv)
    # Ends even a call that hangs in a driver, also if the parent was killed.
    signal.alarm(arguments.at_most)
    from kit.machine.one_device import use_judged_device

    use_judged_device()
    result = os.dup(1)
    os.dup2(2, 1)
    stages = probe(arguments.device)
    with os.fdopen(result, "w", encoding="utf-8") as stdout:
        json.dump({"schema_version": SCHEMA_VERSION, "stages": stages}, stdout)
        stdout.write("\n")
    return 0


if __name__ == "__main__":
    # Python put this folder first on sys.path, so that a library's `import probe` would get ours; the kit goes last.
    sys.path[0:1] = []
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    raise SystemExit(main())
