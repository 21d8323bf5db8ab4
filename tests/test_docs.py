"""README and docs/: every link leads to a page and a heading that are there, and make knows every command."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess

import pytest

from kit.cli.interpreter import PROJECT_ROOT

PAGES = {
    path.relative_to(PROJECT_ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [*PROJECT_ROOT.glob("*.md"), *PROJECT_ROOT.glob("docs/*.md")]
}
LINKS = sorted(
    (page, link) for page, text in PAGES.items() for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link
)
BLOCKS = re.compile(r"^```(?:sh)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = sorted(
    {
        line.removeprefix("caffeinate -i ").split("  #")[0].strip()
        for text in PAGES.values()
        for block in BLOCKS.findall(text)
        for line in block.splitlines()
        if re.match(r"(caffeinate -i )?make ", line)
    }
    | {command for text in PAGES.values() for command in re.findall(r"`(make [^`\n]+)`", text)}
)


def anchors(text: str) -> set[str]:
    """Return what a link may name of a page, as GitHub spells it."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_pages_are_found() -> None:
    assert len(PAGES) >= 15
    assert len(LINKS) >= 30
    assert len(COMMANDS) >= 80


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_links_lead_somewhere(page: str, link: str) -> None:
    name, _, anchor = link.partition("#")
    target = (PROJECT_ROOT / page).parent / name if name else PROJECT_ROOT / page
    assert target.exists()
    assert not anchor or anchor in anchors(target.read_text(encoding="utf-8"))


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("command", COMMANDS)
def test_make_knows_each_command(command: str) -> None:
    words = ["make", "-n", *shlex.split(command.split(" && ", maxsplit=1)[0])[1:]]
    done = subprocess.run(words, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
