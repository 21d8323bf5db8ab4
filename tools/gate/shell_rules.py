"""What shell scripts must not use: what the bash 3.2 and the BSD tools of macOS do not know. shellcheck does not tell.

Every script of the kit is read by it, also those that run elsewhere: one dialect is enough to know.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kit.cli.findings import Finding, error, ok

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# What, what it looks like, and what to write instead; from the CHANGES of bash 4.0 to 5.3.
_BASH = (
    ("an associative array", r"\b(?:declare|local|typeset|readonly)\s+-\w*A", "a case, or one variable for each key"),
    ("a name reference", r"\b(?:declare|local|typeset)\s+-\w*n\b", "pass the value, print the result"),
    ("mapfile", r"\b(?:mapfile|readarray)\b", "while IFS= read -r line; do …; done"),
    ("a change of case", r"\$\{\w+(?:\[[^]]*\])?(?:,{1,2}|\^{1,2})[^}]*\}", "tr '[:upper:]' '[:lower:]'"),
    ("a transformation", r"\$\{\w+(?:\[[@*]\])?@[A-Za-z]\}", "printf %q"),
    ("a negative index", r"\$\{\w+\[-\d+\]\}|\$\{\w+:[^}:]*:\s*-\d+\}", "count from the front"),
    ("|&", r"\|&", "2>&1 |"),
    ("&>>", r"&>>", ">>FILE 2>&1"),
    ("a case that falls through", r";;?&(?!&)", "repeat the commands, or put them into a function"),
    ("a coprocess", r"^\s*coproc\b", "a named pipe"),
    ("a test for a set variable", r"\[\[\s+(?:!\s+)?-[vR]\s", '[ -n "${x+set}" ]'),
    ("a time from printf", r"%(?:\d+\$)?\([^)]*\)T", "date"),
    ("a variable from printf -v to an element", r"printf\s+-v\s+['\"]?\w+\[", "assign the output"),
    ("waiting for any child", r"\bwait\s+-[nfp]\b", "wait for each by its number"),
    ("a file descriptor by name", r"\{[A-Za-z_]\w*\}[<>]", "a number"),
    ("a padded or stepped range", r"\{0\d+\.\.|\.\.0\d+\}|\{-?\w+\.\.-?\w+\.\.-?\d+\}", "while [ … ]"),
    ("an option of shopt", r"\bshopt\s+-\w+\s+.*\b(?:globstar|lastpipe|inherit_errexit|autocd)\b", "find, or a file"),
    ("a variable of bash 5", r"\$\{?(?:EPOCHSECONDS|EPOCHREALTIME|BASHPID|SRANDOM|BASH_ARGV0)\b", "date +%s, or $$"),
    ("read into a preset line", r"\bread\s+(?:-\w+\s+)*-\w*[iN]\b", "read -r"),
)
_TOOLS = (
    ("sed -i without a suffix", r"\bsed\s+(?:-\w+\s+)*-i(?:\s+['\"-]|\s+s/|$)", "write a new file, then mv"),
    ("grep -P", r"\bgrep\s+(?:-\w+\s+)*-\w*P", "grep -E"),
    ("date -d", r"\bdate\s+(?:-u\s+)?(?:-d\b|--date)", "date -r, or Python"),
    ("stat -c", r"\bstat\s+(?:-\w+\s+)*(?:-c\b|--format)", "wc -c, or Python"),
    ("readlink -f", r"\breadlink\s+-\w*f", "cd and pwd -P"),
)
# These are allowed where the script asks first whether they are there.
_GNU_ONLY = ("sha256sum", "nproc", "timeout", "realpath", "tac", "shuf", "gawk", "numfmt")


def _code(line: str) -> str:
    """Return a line without its comment; a # inside quotes or a word is none."""
    stripped = line.lstrip()
    return "" if stripped.startswith("#") else re.sub(r"\s#\s.*$", "", line)


def shell_findings_in(name: str, text: str) -> list[Finding]:
    """Judge one script; ``name`` is its path relative to the project."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        code = _code(line)
        for rules, where in ((_BASH, "bash 3.2"), (_TOOLS, "a BSD tool")):
            for what, pattern, instead in rules:
                if re.search(pattern, code):
                    message = f"{what}: {where} does not know it"
                    found.append(error("shell.not_portable", message, instead, f"{name}:{number}"))
        for tool in _GNU_ONLY:
            used = re.search(rf"(?:^|[|;&(]\s*|\$\(\s*)\s*{tool}\b", code)
            if used and f"command -v {tool}" not in text:
                fix = f"ask first: command -v {tool} >/dev/null"
                found.append(error("shell.not_portable", f"macOS has no {tool}", fix, f"{name}:{number}"))
    return found


def check_shell_scripts(root: Path, scripts: Sequence[Path]) -> list[Finding]:
    """Judge the project's shell scripts."""
    findings = [
        finding
        for path in scripts
        for finding in shell_findings_in(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
    ]
    return findings or [ok("shell", f"{len(scripts)} scripts keep to bash 3.2 and to BSD tools")]
