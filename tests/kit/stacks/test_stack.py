from __future__ import annotations

import pytest

from kit.stacks.generation import version_tuple
from kit.stacks.registry import stack_run_on
from kit.stacks.stack import stack_named, stack_of

CURRENT = {"torch": "2.10.0", "transformers": "5.23.0"}
REFERENCE = {"torch": "2.1.0", "transformers": "4.36.0"}
FLASH = {"flash-attn": "2.3.3"}


@pytest.mark.parametrize(
    ("version", "expected"), [("2.10.0+cu128", (2, 10, 0)), ("5.0.0rc1", (5, 0)), ("0.41.0", (0, 41, 0)), ("", ())]
)
def test_versions_compare_as_numbers(version: str, expected: tuple[int, ...]) -> None:
    assert version_tuple(version) == expected


@pytest.mark.parametrize(
    ("versions", "name"),
    [(CURRENT, "current"), (REFERENCE, "reference"), ({"torch": "2.10.0"}, "none"), ({"transformers": "5.0"}, "none")],
)
def test_a_stack_is_named_by_what_is_installed(versions: dict[str, str], name: str) -> None:
    assert stack_of(versions).name == name


@pytest.mark.parametrize(
    ("versions", "platform", "expected"),
    [
        (CURRENT, "h100", "sdpa"),
        (CURRENT | FLASH, "h100", "flash_attention_2"),
        (CURRENT | FLASH, "m4", "sdpa"),
        (REFERENCE, "h100", "eager"),
        (REFERENCE | FLASH, "cuda", "flash_attention_2"),
        (REFERENCE | FLASH, "cpu", "eager"),
    ],
)
def test_auto_attention_is_the_best_this_stack_has_on_this_platform(
    versions: dict[str, str], platform: str, expected: str
) -> None:
    assert stack_of(versions).resolve_attention("auto", platform) == expected
    assert stack_of(versions).resolve_attention("eager", platform) == "eager"


def test_the_reference_stack_has_4_bit_on_cuda_only() -> None:
    assert stack_of(REFERENCE).traits.four_bit_platforms == {"h100", "cuda"}
    assert stack_of(CURRENT).traits.four_bit_platforms == {"h100", "cuda", "m4", "cpu"}


@pytest.mark.parametrize(
    ("name", "platform", "attention", "transformers"),
    [
        ("reference", "h100", "flash_attention_2", "4.36.0"),
        ("current", "h100", "sdpa", "5.23.0"),
        ("current", "m4", "sdpa", "5.23.0"),
    ],
)
def test_a_stack_elsewhere_is_what_its_lock_and_its_image_hold(
    name: str, platform: str, attention: str, transformers: str
) -> None:
    stack = stack_named(name, platform, elsewhere=True)
    assert stack.resolve_attention("auto", platform) == attention
    assert stack.versions["transformers"] == transformers
    assert stack.has_liger_kernel == (name == "current" and platform == "h100")


@pytest.mark.parametrize(("platform", "name"), [("h100", "reference"), ("cuda", "current"), ("m4", "current")])
def test_a_platforms_own_command_runs_one_stack(platform: str, name: str) -> None:
    assert stack_run_on(platform) == name
