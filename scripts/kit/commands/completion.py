"""Print a shell function ``kit`` that completes commands, options, configurations and runs.

Run as:
    eval "$(python scripts/kit completion bash)"         in ~/.bashrc: with the project's directory in front of scripts/
    eval "$(python scripts/kit completion zsh)"          in ~/.zshrc, behind compinit

Completes configurations in configs/ and runs in outputs/ of the current directory. Exit codes: 0 printed, 2 wrong
use.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys

from kit.cli.command import parser_of
from kit.cli.interpreter import PROJECT_ROOT
from kit.commands import COMMANDS, module_of

# Names of runs and files are read line by line and quoted: none of them is ever a command.
_SCRIPT = r"""kit() { PYTHON KIT "$@"; }
_kit_runs() { find outputs -mindepth 2 -maxdepth 2 -name run.json 2>/dev/null | sed 's,^outputs/,,; s,/run.json$,,'; }
_kit_configs() { find configs -maxdepth 1 -name '*.yaml' 2>/dev/null; }
_kit() {
  local each found="" word="${COMP_WORDS[COMP_CWORD]}"
  case "$COMP_CWORD ${COMP_WORDS[1]}" in
    "1 "*) found="NAMES" ;;
CASES
  esac
  COMPREPLY=()
  while IFS= read -r each; do
    case "$each" in
      "") ;;
      "$word"*) COMPREPLY+=("$(printf %q "$each")") ;;
    esac
  done <<END_OF_WORDS
$found
END_OF_WORDS
}
complete -o default -F _kit kit
"""
_FOUND = {"config": "$(_kit_configs)", "run": "$(_kit_runs)", "a": "$(_kit_runs)", "b": "$(_kit_runs)"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh"))


def run(options: argparse.Namespace) -> int:
    cases = [f'    *" {name}") found="{_words(name)}" ;;' for name in COMMANDS]
    script = _SCRIPT.replace("PYTHON", shlex.quote(sys.executable))
    script = script.replace("KIT", shlex.quote(str(PROJECT_ROOT / "scripts" / "kit")))
    script = script.replace("CASES", "\n".join(cases)).replace("NAMES", "\n".join(COMMANDS))
    before = "autoload -Uz bashcompinit && bashcompinit\n" if options.shell == "zsh" else ""
    print(before + script, end="")
    return 0


def _words(name: str) -> str:
    """Return what may stand behind a command, a word a line."""
    words = []
    for action in parser_of(importlib.import_module(module_of(name)))._actions:  # noqa: SLF001 - argparse has no other way
        words += [option for option in action.option_strings if option.startswith("--")]
        if not action.option_strings:
            words += [str(choice) for choice in action.choices or ()] + [_FOUND.get(action.dest, "")]
    return "\n".join(filter(None, words))
