"""Try a model's tokenizer and chat template in a child process with limits of time and memory.

Both are programs of the model's publisher: a template can loop or ask for gigabytes, a normaliser can double a text
forty times, and some files crash the library. What passes in the child the parent repeats. ``try_out`` starts it as
``python -m kit.data.trial``. Imports neither torch nor transformers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from kit.cli.interpreter import python_path
from kit.cli.refusals import is_panic
from kit.data.template import ChatTemplate, TemplateError
from kit.data.turn_keys import THOUGHTS
from kit.files.regular_files import open_regular
from kit.model.files import ModelFileError
from kit.model.tokenizer_files import read_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenizers import Tokenizer

_MEMORY_BYTES = 3 << 30  # a tokenizer of 256,000 tokens takes about 0.5 GB to read
_READING_SECONDS = 15  # of CPU time: the same one takes 2
_USING_SECONDS = 4  # of CPU time after reading; a template takes milliseconds
_WALL_SECONDS = 90.0  # generous: the machine may be busy
_MOST_CHARACTERS = 1 << 20  # for a short conversation; templates write some thousands
_LOOK_SECONDS = 0.02

_TOKENIZER, _TEMPLATE = "its tokenizer.json", "its chat template"
# Printable ASCII, some letters of more bytes, runs of one character: what rows are made of.
_TEXT = f"{''.join(map(chr, range(32, 127)))}\n\t\r\n éßñ Ωж 日本語 שלום 🦙👩‍👧 e\u0301 \u00a0\u200b "
_LONG = _TEXT * 80 + "a" * 2000 + " " * 2000 + "\n" * 500
_THINKING = "assistant that thinks"  # a turn with thoughts, which some templates render specially
_CONVERSATIONS = (
    ("user",), ("user", "assistant"), ("user", "assistant", "user", "assistant"), ("system", "user", "assistant"),
    ("user", _THINKING),
)  # fmt: skip


_found: dict[tuple[str, str], str] = {}  # problem by content: a process often loads the same model again


def try_out(name_or_path: str, tokenizer: Path, template: ChatTemplate) -> None:
    """Check that the files can be used at all, once per content.

    Raises:
        ModelFileError: They do not finish, crash, or exceed the limits.
    """
    try:
        with open_regular(tokenizer) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise ModelFileError(f"{tokenizer}: cannot be read ({exc.strerror}); download the model again") from exc
    order = {"source": template.source, "special_tokens": template.special_tokens, "date": template.date}
    key = (digest, json.dumps(order))
    if key not in _found:
        _found[key] = _tried({**order, "tokenizer": str(tokenizer)})
    if found := _found[key]:
        raise ModelFileError(f"{name_or_path}: {found}; download the model again, or use another model")


def _tried(order: dict[str, Any]) -> str:
    """Run the child; return what is wrong, or an empty string."""
    environment = {
        **os.environ, "PYTHONPATH": python_path(), "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1",
    }  # fmt: skip
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors_file:
        given.write(json.dumps(order).encode())
        given.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-m", "kit.data.trial"],
            stdin=given,
            stdout=said,
            stderr=errors_file,
            env=environment,
            start_new_session=True,  # otherwise Ctrl-C would reach the child and look like a crash
        )
        try:
            ran_away = _watch(child)
        finally:
            with contextlib.suppress(OSError):
                child.kill()
            child.wait()
        said.seek(0)
        lines = said.read().decode(errors="replace").splitlines()
        return _judge(child.returncode, ran_away, lines, errors_file)


def _watch(child: subprocess.Popen[bytes]) -> str:
    """Wait for the child; return which limit it exceeded that the system itself does not enforce."""
    import psutil

    begun = time.monotonic()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_LOOK_SECONDS)
            return ""
        if time.monotonic() - begun > _WALL_SECONDS:
            return "time"
        with contextlib.suppress(psutil.Error):
            if psutil.Process(child.pid).memory_info().rss > _MEMORY_BYTES:
                return "memory"


def _judge(code: int, ran_away: str, lines: list[str], errors_file: BinaryIO) -> str:
    """Return what is wrong, from how the child ended and the last stage it began."""
    said = [json.loads(line) for line in lines if line.startswith("{")]
    stage = next((line["stage"] for line in reversed(said) if "stage" in line), "")
    refused = next((line["refused"] for line in said if "refused" in line), "")
    if code == 0:
        return f"{stage} {refused}" if refused else ""
    errors_file.seek(0)
    words = errors_file.read().decode(errors="replace")
    if not stage:
        return f"its files could not be tested ({' '.join(words.split())[-200:] or f'exit code {code}'})"
    if ran_away == "memory" or "memory allocation" in words or "MemoryError" in words:
        return f"{stage} takes more than {_MEMORY_BYTES >> 30} GB of memory"
    if ran_away == "time" or code == -signal.SIGXCPU:
        return f"{stage} does not finish"
    if code == -signal.SIGKILL:
        return f"{stage} takes more memory than this machine has"
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"{stage} crashes the process that uses it ({how})"


def main() -> int:
    """Do once what the parent is going to do, and report each stage before it."""
    # macOS cannot limit memory; there the parent watches.
    _bound(resource.RLIMIT_AS, _MEMORY_BYTES)
    _bound(resource.RLIMIT_CPU, _READING_SECONDS)
    _bound(resource.RLIMIT_CORE, 0)
    order: dict[str, Any] = json.load(sys.stdin)
    try:
        _use(order)
    except _RefusedError as exc:
        _say(refused=str(exc))
    except MemoryError:
        _say(refused=f"takes more than {_MEMORY_BYTES >> 30} GB of memory")
    except RecursionError:
        _say(refused="is nested deeper than Python allows")
    except BaseException as exc:
        if is_panic(exc):
            _say(refused=f"makes the library fail ({' '.join(str(exc).split())[:200]})")
        elif not isinstance(exc, Exception):
            raise
        # The parent meets any other error itself, and reports it.
    return 0


class _RefusedError(Exception):
    pass


def _use(order: dict[str, Any]) -> None:
    _say(stage=_TOKENIZER)
    tokenizer, _ = read_tokenizer(Path(order["tokenizer"]), rendered=True)
    _bound(resource.RLIMIT_CPU, math.ceil(time.process_time()) + _USING_SECONDS)
    probe = _LONG + "".join(_texts_of(tokenizer))
    _encode(tokenizer, probe)
    if not order["source"]:
        return
    template = ChatTemplate(order["source"], order["special_tokens"], order["date"])
    _say(stage=_TEMPLATE)
    template.compiled  # noqa: B018 - the first access compiles it
    for content in (_TEXT, probe):
        for roles in _CONVERSATIONS:
            for add_generation_prompt in (False, True):
                turns = [_turn(role, content) for role in roles]
                _say(stage=_TEMPLATE)
                try:
                    text = template.render(turns, add_generation_prompt=add_generation_prompt)
                except TemplateError as exc:
                    if isinstance(exc.__cause__, (MemoryError, RecursionError)):
                        raise exc.__cause__ from exc
                    continue
                allowed = _MOST_CHARACTERS + 4 * sum(len(text) for turn in turns for text in turn.values())
                if len(text) > allowed:
                    raise _RefusedError(f"writes {len(text):,} characters for turns of {len(content):,}")
                _say(stage=_TOKENIZER)
                _encode(tokenizer, text)


def _turn(role: str, content: str) -> dict[str, str]:
    if role == _THINKING:
        return {"role": "assistant", "content": content, **dict.fromkeys(THOUGHTS, content)}
    return {"role": role, "content": content}


def _encode(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if len(ids) > _MOST_CHARACTERS + 8 * len(text):
        raise _RefusedError(f"makes {len(ids):,} tokens of {len(text):,} characters")


def _texts_of(tokenizer: Tokenizer) -> Iterator[str]:
    """Yield the strings that the normaliser and the splitter match: a text without them would not test those."""
    for part in (tokenizer.normalizer, tokenizer.pre_tokenizer):
        if part is not None:
            with contextlib.suppress(Exception):  # one that cannot be serialised is tested without its strings
                yield from _strings(json.loads(part.__getstate__()))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str) and len(value) < 1000:  # noqa: PLR2004 - a longer string is a table, not a pattern
        yield value
    elif isinstance(value, (list, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _bound(kind: int, most: int) -> None:
    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _say(**what: str) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
