"""Keys, tokens, addresses and cards are found where they are, and not where they are not; none is shown."""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.audit import secrets
from kit.audit.secrets import find_secrets, luhn, mask

# Put together here, so that no scanner takes this file for a leak.
LIKE = {
    "AWS Access Key": "AKIA" + "IOSFODNN7EXAMPLE",
    "GitHub Token": "ghp_" + "a1B2" * 9,
    "GitLab Token": "glpat-" + "a1B2c3D4e5F6g7H8i9J0",
    "Slack Token": "xoxb-" + "123456789012-abcdefghij",
    "Stripe Access Key": "sk_live_" + "a1B2" * 6,
    "JSON Web Token": "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxIn0." + "c2lnbmF0dXJlLW9mLW5vYm9keQ",
    "Private Key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "Basic Auth Credentials": "https://user:" + "pa55word@example.com/",
    "SendGrid API Key": "SG." + "a1B2c3D4e5F6g7H8i9J0ab." + "a" * 43,
    "Twilio API Key": "SK" + "0123456789abcdef" * 2,
    "e-mail address": "jane.doe+x@mail.example.co.uk",
    "card number": "4111-1111-" + "1111-1111",
}


@pytest.mark.parametrize("kind", sorted(LIKE))
@pytest.mark.parametrize("around", ["{}", "my key is {}, keep it", "a\nb = {}\nc", "日本 {} 🦙"])
def test_each_kind_is_found_and_not_shown(kind: str, around: str) -> None:
    found = find_secrets(around.format(LIKE[kind]))
    assert kind in {secret.kind for secret in found}
    for secret in found:
        assert len(secret.masked) <= 5
        assert LIKE[kind] not in secret.masked


@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox jumps over the lazy dog. " * 20,
        "order 4111111111111112 of 2024-01-01, phone +49 30 1234567",
        "see https://example.com/a/b?c=d and user@localhost",
        "pi is 3.14159265358979323846, and 1111111111111111 is no card",
        "a uuid 123e4567-e89b-12d3-a456-426614174000 and sha256 " + "0a" * 32,
        "antidisestablishmentarianism",
        "x" * 100_000,
        "",
    ],
)
def test_prose_and_code_are_left_in_peace(text: str) -> None:
    assert find_secrets(text) == []


def test_one_secret_said_twice_is_one() -> None:
    assert len(find_secrets("bob@example.com, again bob@example.com")) == 1


@given(st.text(string.digits, min_size=12, max_size=18))
def test_one_last_digit_of_ten_is_right(digits: str) -> None:
    assert sum(luhn(digits + last) for last in string.digits) == 1


@given(st.text(max_size=300))
def test_any_text_can_be_looked_at(text: str) -> None:
    find_secrets(text)


@given(st.text(max_size=60))
def test_a_mask_shows_at_most_a_third(text: str) -> None:
    assert len(mask(text).rstrip("…")) <= len(text) / 3


def test_a_long_line_of_letters_takes_no_time() -> None:
    source = random.Random(0)  # noqa: S311 - any letters will do
    find_secrets("".join(source.choices(string.ascii_letters + string.digits, k=300_000)))


def test_no_pattern_is_given_more_than_a_few_characters_and_no_token_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[int] = []
    in_line = secrets._in_line
    monkeypatch.setattr(secrets, "_in_line", lambda line: looked.append(len(line)) or in_line(line))
    token = f"ghp_{'a1' * 18}"
    for at in range(900, 2_100, 50):
        assert [found.kind for found in find_secrets(f"{'x' * at} {token} {'x' * 4000}")] == ["GitHub Token"]
    assert max(looked) <= 1_500
