import os
from pathlib import Path

import pytest

from kit.image.start import attention_sentence, check_writable
from kit.stacks.stack import stack_of

REFERENCE = {"torch": "2.1.0", "transformers": "4.36.0"}
CURRENT = {"torch": "2.10.0", "transformers": "5.23.0"}


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({**REFERENCE, "flash-attn": "2.3.3"}, "FlashAttention 2 (flash-attn 2.3.3)"),
        ({**CURRENT, "flash-attn": "2.8.3"}, "FlashAttention 2 (flash-attn 2.8.3)"),
        (CURRENT, "torch's SDPA"),
        (REFERENCE, "eager, for rows of up to 2,048 tokens"),
    ],
)
def test_the_attention_that_will_run_is_named(versions: dict[str, str], said: str) -> None:
    assert attention_sentence(stack_of(versions)).startswith(said)


def test_a_folder_that_can_be_written_is_fine(tmp_path: Path) -> None:
    assert check_writable(tmp_path, os.getuid()) == []


def test_a_folder_that_cannot_be_written_names_its_cure(tmp_path: Path) -> None:
    (finding,) = check_writable(tmp_path / "outputs", 1000)
    assert finding.severity == "error"
    assert "chown -R 1000 outputs" in finding.fix
