"""A chat template, compiled and rendered as transformers does: a program of the model's author, in jinja's sandbox."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import resource
import signal
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kit.model.files import ModelFileError, find, read_json, read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import FrameType

_REASON_SHOWN = 200  # characters of a template's own message
_SECONDS = 10.0  # CPU time per row; a template takes milliseconds
_MOST_CHARACTERS = 1 << 27  # per row, which has at most 32 MB
_LARGEST_POWER = 1000
_MORE_BYTES = 1 << 30  # of memory while rows are rendered
_LONGEST_TEMPLATE = 1 << 20  # bytes; the longest in use have some tens of thousands
_DATE_FUNCTION = "strftime_now"
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
CHANGE_THE_TURNS = "change the row's turns, or remove it"


class TemplateError(ValueError):
    """A conversation cannot be rendered or tokenised; the message is the row's predicate."""

    def __init__(self, message: str, fix: str = CHANGE_THE_TURNS) -> None:
        """Keep message and fix apart, as findings show them."""
        super().__init__(message)
        self.fix = fix


@dataclass(frozen=True)
class ChatTemplate:
    """A template with everything it is rendered with except the turns."""

    source: str
    special_tokens: dict[str, str]  # bos_token, eos_token … as the template sees them
    date: str | None = None  # its today, YYYY-MM-DD; None leaves strftime_now undefined

    @functools.cached_property
    def _ran_away(self) -> list[bool]:
        return []

    @functools.cached_property
    def compiled(self) -> jinja2.Template:
        """The compiled template; the first access compiles it and raises jinja's own errors."""
        return _environment(self.date).from_string(self.source)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the source: a compiled template cannot be pickled."""
        return ChatTemplate, (self.source, self.special_tokens, self.date)

    def render(self, turns: Sequence[dict[str, str]], *, add_generation_prompt: bool = False) -> str:
        """Render turns of ``role`` and ``content``.

        Raises:
            TemplateError: The template rejects them.
        """
        if self._ran_away:
            raise TemplateError("is not rendered: the base model's chat template exceeded its limits on an earlier row")
        words = {"messages": turns, "add_generation_prompt": add_generation_prompt, **self.special_tokens}
        try:
            with _in_time():
                return "".join(_at_most(self.compiled.generate(words), _MOST_CHARACTERS))
        except Exception as exc:  # a template is a program and may fail in any way
            if isinstance(exc, jinja2.UndefinedError) and _DATE_FUNCTION in str(exc):
                raise DateError from exc
            if isinstance(exc, _RanAwayError):
                self._ran_away.append(True)  # the next rows would take as long
            reason = " ".join(str(exc).split())[:_REASON_SHOWN] or type(exc).__name__
            raise TemplateError(f"is rejected by the base model's chat template ({reason})") from exc


class _RanAwayError(Exception):
    pass


def _at_most(pieces: Iterable[str], characters: int) -> Iterator[str]:
    left = characters
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise _RanAwayError(f"it writes more than {characters:,} characters")
        yield piece


@contextlib.contextmanager
def within_memory() -> Iterator[None]:
    """Limit the memory of templates; macOS cannot limit address space.

    ``kit.data.trial`` has already rejected a template that takes too much for any row; this is for certain rows.
    """
    try:
        size = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = [size + _MORE_BYTES, *(limit for limit in before if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(most), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    """Interrupt a template that takes too long on certain rows; ``kit.data.trial`` has tried it on others.

    Works for Python's own loops in the main thread: signals arrive nowhere else.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _break_off)
    signal.setitimer(signal.ITIMER_VIRTUAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _break_off(_number: int, _frame: FrameType | None) -> None:
    raise _RanAwayError(f"it takes more than {_SECONDS:g} s")


class DateError(TemplateError):
    """The template uses today's date, and none is pinned."""

    def __init__(self) -> None:
        """Name the option with today's date."""
        today = datetime.now(UTC).date().isoformat()
        super().__init__(
            "cannot be rendered: the model's chat template uses today's date, so its ids would change from day to day",
            f"pin the date: data.template_date={today}",
        )


class _GenerationBlock(Extension):
    """``{% generation %}`` marks answers; here its content is rendered unchanged."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own way to declare a tag

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A call block rather than the bare body scopes variables set inside, as in transformers.
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller: Callable[[], str]) -> str:
        return caller()


def read_template(name_or_path: str, revision: str | None, date: str | None, *, download: bool) -> ChatTemplate:
    """Read a model's template without compiling it; its source is empty if the model has none.

    Raises:
        ModelFileError: A file is missing or broken.
    """
    config = read_json(find(name_or_path, "tokenizer_config.json", revision, download=download))
    source = _template_source(name_or_path, config, revision, download=download)
    return ChatTemplate(source or "", _special_tokens(config), date)


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    texts = {key: value.get("content") if isinstance(value, dict) else value for key, value in config.items()}
    return {key: text for key, text in texts.items() if key.endswith("_token") and isinstance(text, str) and text}


def _template_source(name_or_path: str, config: dict[str, Any], revision: str | None, *, download: bool) -> str | None:
    try:
        path = find(name_or_path, "chat_template.jinja", revision, download=download)
    except ModelFileError:
        source = config.get("chat_template")
    else:
        # The file wins over the configuration, as in transformers 5.
        if (size := path.stat().st_size) > _LONGEST_TEMPLATE:
            raise ModelFileError(
                f"{path}: is {size:,} bytes long, more than {_LONGEST_TEMPLATE:,}; download the model again"
            )
        return read_text(path)
    if isinstance(source, list):  # several named templates: the default one, as transformers does
        named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
        source = named.get("default")
    return source if isinstance(source, str) else None


def _environment(date: str | None) -> ImmutableSandboxedEnvironment:
    # The settings chat templates are written for: transformers' `_compile_jinja_template`. `strftime_now` exists only
    # with a pinned date: the same rows would get other ids tomorrow.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json  # jinja's own escapes for HTML
    environment.globals["raise_exception"] = _refuse
    environment.intercepted_binops = frozenset({"**"})  # one step of it may take for ever
    environment.binop_table["**"] = _power
    # As in transformers, where templates test `tools is none`.
    environment.globals |= {"tools": None, "documents": None}
    if date is not None:
        environment.globals[_DATE_FUNCTION] = functools.partial(_written_date, datetime.fromisoformat(date))
    return environment


def _power(base: Any, exponent: Any) -> Any:
    if abs(base) > _LARGEST_POWER or abs(exponent) > _LARGEST_POWER:
        raise _RanAwayError("it raises a number to a power that no template needs")
    return base**exponent


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _written_date(day: datetime, form: str) -> str:
    """Write a day as ``strftime`` does, with the C locale's names whatever the machine speaks."""
    weekday, month = _DAYS[day.weekday()], _MONTHS[day.month - 1]
    names = {
        "%a": weekday[:3], "%A": weekday, "%b": month[:3], "%h": month[:3], "%B": month, "%p": "AM",
        "%c": f"{weekday[:3]} {month[:3]} {day.day:2d} 00:00:00 {day.year}", "%x": "%m/%d/%y", "%X": "%H:%M:%S",
        "%r": "%I:%M:%S AM",
    }  # fmt: skip
    return day.strftime(re.sub("%.", lambda found: names.get(found[0], found[0]), form))
