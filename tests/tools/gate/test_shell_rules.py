import os
import subprocess

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from tools.gate.shell_rules import check_shell_scripts, shell_findings_in
from tools.gate.tracked_files import shell_scripts

NEWER_THAN_BASH_3_2 = [
    "declare -A sizes",
    "local -rA sizes",
    "local -n target=$1",
    "mapfile -t lines <file",
    "readarray lines",
    'echo "${name,,}"',
    "echo ${name^}",
    "echo ${list[@]^^}",
    "echo ${name@Q}",
    "echo ${list[-1]}",
    "echo ${name:0:-1}",
    "make |& tee log",
    "make &>>log",
    "case $x in a) b ;& c) d ;; esac",
    "case $x in a) b ;;& c) d ;; esac",
    "coproc make",
    "[[ -v name ]] && echo",
    "printf '%(%F)T' -1",
    "printf -v 'list[0]' x",
    "wait -n",
    "exec {log}>file",
    "for i in {01..10}; do :; done",
    "echo {1..10..2}",
    "shopt -s globstar",
    "echo $EPOCHSECONDS",
    "echo ${BASHPID}",
    "read -r -N 1 key",
]
GNU_ONLY = [
    "sed -i 's/a/b/' file",
    "grep -oP '\\d' file",
    "date -d yesterday",
    "stat -c %s file",
    "readlink -f x",
    "sha256sum file",
    "cores=$(nproc)",
    "true | timeout 5 make",
]
FINE = [
    "# declare -A is bash 4",
    "declare -a list",
    'echo "${name:-default}" ${name%%.*} ${list[0]} ${name: -1}',
    "make 2>&1 | tee log",
    "make >>log 2>&1 &",
    "case $x in a) b ;; esac",
    "echo {1..10}",
    "[ -n \"${name+set}\" ] && printf '%s\\n' x",
    "exec 3>file",
    "sed -i.bak 's/a/b/' file",
    'wait "$child"',
    "set_timeout=5",
]


@pytest.mark.parametrize("line", [*NEWER_THAN_BASH_3_2, *GNU_ONLY])
def test_what_macos_does_not_know_is_found(line: str) -> None:
    (finding,) = shell_findings_in("a.sh", f"#!/bin/bash\n{line}\n")
    assert (finding.id, finding.where) == ("shell.not_portable", "a.sh:2")


@pytest.mark.parametrize("line", FINE)
def test_what_macos_knows_is_left_alone(line: str) -> None:
    assert shell_findings_in("a.sh", f"#!/bin/bash\n{line}\n") == []


def test_a_tool_that_is_asked_for_first_is_allowed() -> None:
    assert shell_findings_in("a.sh", "command -v nproc >/dev/null && nproc\n") == []


def test_the_projects_own_scripts_pass() -> None:
    findings = check_shell_scripts(PROJECT_ROOT, shell_scripts(PROJECT_ROOT))
    assert [f"{finding.where}: {finding.message}" for finding in findings if finding.severity == "error"] == []


@pytest.mark.skipif(not os.environ.get("KIT_BASH"), reason="set KIT_BASH to a bash 3.2")
@pytest.mark.parametrize("path", shell_scripts(PROJECT_ROOT), ids=lambda path: path.name)
def test_an_old_bash_reads_every_script(path: os.PathLike[str]) -> None:
    subprocess.run([os.environ["KIT_BASH"], "-n", path], check=True)
