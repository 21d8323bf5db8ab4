"""docs/SETUP_M4.md: each command is run on the stand-in Mac; what it quotes is what the kit says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from stand_in_mac import BASH, Mac

if TYPE_CHECKING:
    from pathlib import Path

TEXT = (PROJECT_ROOT / "docs" / "SETUP_M4.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
LAST_COMMANDS = re.findall(r": `((?:\./setup_m4\.sh|make|\.venv-m4/)[^`]*)`", TEXT.split("## Not verified")[1])
KIT_SAYS = ["runs under Rosetta", "built for arm64, was found", "is too old",
            "the package registry cannot be reached", "certificate is not trusted here",
            "torch cannot use MPS"]  # fmt: skip
# The shell's, PyTorch's and bitsandbytes' own words.
OTHERS_SAY = ["permission denied", "invalid low watermark ratio", "MPS backend out of memory",
              "is not currently implemented for the MPS device", "cget_managed_ptr"]  # fmt: skip

pytestmark = pytest.mark.skipif(
    BASH is None or shutil.which("make") is None, reason="bash and make are needed to run the document's commands"
)


def run(mac: Mac, command: str) -> subprocess.CompletedProcess[str]:
    # make's own PATH has no python3 here, as on a Mac without Apple's command line tools.
    words = [str(BASH), *shlex.split(command)] if command.startswith("./setup_m4.sh") else shlex.split(command)
    return subprocess.run(
        words, cwd=mac.root, env=mac.variables(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Mac:
    mac = Mac(tmp_path_factory.mktemp("mac"))
    assert mac.run().returncode == 0
    return mac


def test_the_document_has_its_commands() -> None:
    assert (len(COMMANDS), len(LAST_COMMANDS)) == (10, 5)


@pytest.mark.parametrize("command", sorted({*COMMANDS, *LAST_COMMANDS} - {"./setup_m4.sh --uninstall"}))
def test_each_command_runs(ready: Mac, command: str) -> None:
    done = run(ready, command)
    assert done.returncode == 0, done.stderr


def test_the_way_back_runs_too(tmp_path: Path) -> None:
    assert run(Mac(tmp_path), "./setup_m4.sh --uninstall").returncode == 0


def test_training_commands_reach_the_trainer_with_their_values(ready: Mac) -> None:
    run(ready, next(command for command in COMMANDS if "trial" in command))
    assert ready.log.read_text().splitlines()[-1] == (
        "python scripts/kit train configs/training_config_m4.yaml training.max_steps=5 training.run_name=trial "
        "training.report_to=none --require m4"
    )


@pytest.mark.parametrize("words", KIT_SAYS)
def test_what_troubleshooting_quotes_is_what_the_kit_says(words: str) -> None:
    sources = [PROJECT_ROOT / "setup_m4.sh"]
    sources += [path for folder in ("scripts", "tools") for path in (PROJECT_ROOT / folder).rglob("*.py")]
    assert words in TEXT
    assert any(words in path.read_text(encoding="utf-8") for path in sources)


def test_every_quoted_symptom_is_one_of_these() -> None:
    table = TEXT.split("## Troubleshooting")[1].split("\n## ")[0]
    symptoms = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(symptoms) == len(KIT_SAYS) + len(OTHERS_SAY)
    assert [quote for quote in symptoms if not any(words in quote for words in [*KIT_SAYS, *OTHERS_SAY])] == []


def test_every_file_the_document_names_is_there() -> None:
    named = set(re.findall(r"\b(?:configs|scripts|tests)/[\w.-]+\w|requirements-m4\.txt|setup_m4\.sh", TEXT))
    assert [name for name in named if not (PROJECT_ROOT / name).exists()] == []


def test_every_configuration_key_the_document_names_exists() -> None:
    from kit.config.schema import keys

    known = set(keys())
    named = set(re.findall(r"\b((?:training|lora|model|data)\.[a-z_]+)(?==|`)", TEXT))
    assert named - known == set()
