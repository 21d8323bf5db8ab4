"""No secret reaches a terminal, a receipt, a report or a traceback: known ones by value, unknown ones by form.

The tokens here are made up, and put together from parts so that no scanner takes this file for a leak.
"""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.cli import console, findings, redaction
from kit.cli.interpreter import PROJECT_ROOT
from kit.cli.redaction import REDACTED, redact, redact_all, redact_argv

if TYPE_CHECKING:
    from pathlib import Path

HF = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz01234567"
WANDB = "0123456789abcdef" * 2 + "01234567"
REVISION = "9ab6f1e2" * 5
KNOWN = "s3cr3t-Value/with+signs=="


@pytest.fixture(autouse=True)
def _no_logins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Hide the logins of whoever runs the tests."""
    for name in [name for name in os.environ if redaction._SECRET_NAME.search(name)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.delenv("HF_TOKEN_PATH", raising=False)
    redaction._from_files.cache_clear()
    yield
    redaction._from_files.cache_clear()


@pytest.mark.parametrize(
    "secret",
    [
        HF,
        "api_org_" + "a1" * 17,
        "wandb_v1_" + "aB3_" * 12,
        "ghp_" + "a1B2" * 9,
        "github_pat_" + "11ABCDEFG0_" + "a1" * 25,
        "glpat-" + "a1B2c3D4e5F6g7H8i9J0",
        "sk-" + "proj-a1B2c3D4e5F6g7H8i9J0",
        "xoxb-" + "123456789012-abcdef",
        "AKIA" + "IOSFODNN7EXAMPLE",
        "eyJ" + "hbGciOiJIUzI1NiJ9" + ".eyJ" + "zdWIiOiIxMjM0In0" + "." + "c2lnbmF0dXJl",
        "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA " + "PRIVATE KEY-----",
    ],
)
@pytest.mark.parametrize("around", ["{}", "error: {} is bad", 'token="{}"', "https://host/x?y={}&z=1", "['{}', 1]"])
def test_a_token_with_a_form_of_its_own_is_hidden_wherever_it_stands(secret: str, around: str) -> None:
    shown = redact(around.format(secret))
    assert secret not in shown
    assert secret[8:24] not in shown
    assert REDACTED in shown


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("https://me:p4ss-w0rd@host/simple", "p4ss-w0rd"),
        ("git+https://me:p@ss/w0rd@host:8080/x", "w0rd"),
        ("postgres://:only-a-passw0rd@db", "only-a-passw0rd"),
        ("https://a1b2c3d4e5f6a7b8c9d0@host/simple", "a1b2c3d4e5f6a7b8c9d0"),
        ("git+https://a1b2c3d4e5f6a7b8:@host/x.git", "a1b2c3d4e5f6a7b8"),
        ("Authorization: Bearer abcdefghijklmnop", "abcdefghijklmnop"),
        ("{'authorization': 'Basic dXNlcjpwYXNzd29yZA=='}", "dXNlcjpwYXNzd29yZA"),
        ("unrecognized arguments: --token abc", "abc"),
        ("unrecognized arguments: --hub-token=abc", "=abc"),
        ("WANDB_API_KEY=0xdeadbeef1234", "deadbeef"),
        ('{"api_key": "a1b2c3d4e5f6g7"}', "a1b2c3d4e5f6g7"),
        ("?X-Amz-Signature=0123456789abcdef&x=1", "0123456789abcdef"),
        (f"wandb: login with {WANDB} failed", WANDB),
        (f"[wandb.login()] API key {WANDB}", WANDB),
    ],
)
def test_what_its_surroundings_call_a_secret_is_hidden(text: str, hidden: str) -> None:
    assert hidden not in redact(text)
    assert REDACTED in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        f"git revision {REVISION}, model.revision={REVISION}",
        "a" * 64,
        "1,234 tokens in 5 steps, 12 tokens a row: max_new_tokens=1234567890123",
        "eos_token: </s>0123456789abc, pad_token=<pad>0123456789",
        "HF_TOKEN is not set: `hf auth login` or set HF_TOKEN",
        "the token has no access",
        "http://localhost:8080/a@b",
        "ssh://git@host/x.git and me@example.org",
        "ssh://deploy-service-account@host/x.git, https://user2024@host, s3://bucket/a1b2c3d4e5f6a7b8c9d0@x",
        "outputs/demo/checkpoints/checkpoint-200/adapter_model.safetensors",
        "data.train_file=data/sample/train.jsonl training.learning_rate=2e-4",
        "the key training.max_seq_length must be an integer from 8 to 131072",
        "the-risk-taking-of-a-long-hyphenated-word sk-only-words-and-no-number-here",
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "MY_PASSWORD", "AWS_SECRET"])
def test_a_known_value_is_hidden_in_every_form_it_is_written_in(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, KNOWN)
    for text in (f"a {KNOWN} b", json.dumps({"x": KNOWN}), "s3cr3t-Value%2Fwith%2Bsigns%3D%3D", f"{KNOWN}{KNOWN}"):
        assert "s3cr3t" not in redact(text)


def test_a_variable_that_holds_a_place_or_a_word_hides_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MY_TOKEN", str(tmp_path))
    monkeypatch.setenv("OTHER_TOKEN", "disabled")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-or-true")
    text = f"{tmp_path} is disabled: false-or-true"
    assert redact(text) == text


def test_logins_kept_in_files_are_known_too(tmp_path: Path) -> None:
    home = tmp_path / "huggingface"
    home.mkdir()
    (home / "token").write_text("plain-token-of-1-file\n")
    (home / "stored_tokens").write_text("[mine]\nhf_token = stored-token-of-2\n")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password netrc-word-of-3\n")
    redaction._from_files.cache_clear()
    shown = redact("plain-token-of-1-file stored-token-of-2 netrc-word-of-3 user")
    assert shown == f"{REDACTED} {REDACTED} {REDACTED} user"


def test_logins_in_files_of_other_names_are_known_as_their_libraries_find_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN_PATH", "$SCRATCH/my_token")
    monkeypatch.setenv("NETRC", "$SCRATCH/logins")
    (tmp_path / "my_token").write_text("plain-token-of-1-file\n")
    (tmp_path / "stored_tokens").write_text("[mine]\nhf_token = stored-token-of-2\n")
    (tmp_path / "logins").write_text("machine api.wandb.ai\n  login user\n  password netrc-word-of-3\n")
    redaction._from_files.cache_clear()
    shown = redact("plain-token-of-1-file stored-token-of-2 netrc-word-of-3 user")
    assert shown == f"{REDACTED} {REDACTED} {REDACTED} user"


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["--token", "short", "x"], ["--token", REDACTED, "x"]),
        (["--token=short"], [f"--token={REDACTED}"]),
        (["hub.token=short", "a.yaml"], [f"hub.token={REDACTED}", "a.yaml"]),
        ([f"wandb.project={WANDB}"], [f"wandb.project={REDACTED}"]),
        ([f"model.revision={REVISION}"], [f"model.revision={REVISION}"]),
        ([f"wandb.project={HF}"], [f"wandb.project={REDACTED}"]),
        (["--token", "--json"], ["--token", "--json"]),
        (["lora.r=8", "training.run_name=a"], ["lora.r=8", "training.run_name=a"]),
    ],
)
def test_a_command_line_is_written_down_without_its_secrets(argv: list[str], shown: list[str]) -> None:
    assert redact_argv(argv) == shown


def test_data_is_redacted_to_its_last_leaf() -> None:
    assert redact_all({"a": [{"b": f"x {HF}"}, 1, None], "c": (HF,)}) == {
        "a": [{"b": f"x {REDACTED}"}, 1, None],
        "c": [REDACTED],
    }


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_token_is_hidden_whatever_stands_around_it(before: str, after: str) -> None:
    assert HF not in redact(f"{before}{HF}{after}")


@given(st.text(max_size=300))
def test_redacting_twice_is_redacting_once(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "piece", ["a_", "token=", "://a:", "eyJaaaaaaaa.", "hf_", "wandb ", "--token", "bearer ", "-----BEGIN "]
)
def test_a_hostile_text_takes_no_more_than_moments(piece: str) -> None:
    redact(piece * (200_000 // len(piece)))  # would not come back in an hour if a pattern took the square


def test_the_kits_own_words_and_findings_are_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    console.say(f"say {HF}")
    console.fail(f"fail {HF}", f"fix {HF}")
    found = [findings.error("x", f"message {HF}", f"fix {HF}", f"where {HF}")]
    findings.render(found)
    print(findings.as_json(found, more={"argv": [HF]}))
    out, err = capsys.readouterr()
    assert "hf_Ab" not in out + err
    assert (out + err).count(REDACTED) == 10


def test_what_libraries_print_log_warn_or_raise_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        patch.setattr(sys, "stdout", stream)
        redaction.guard_output()
        redaction.guard_output()  # once is enough, twice does no harm
        print(HF)
        logging.StreamHandler(sys.stderr).handle(logging.LogRecord("x", 40, "", 1, f"log {HF}", None, None))
        sys.stderr.write(warnings.formatwarning(f"warn {HF}", UserWarning, "x.py", 1))
        exc = ValueError(HF)
        sys.excepthook(type(exc), exc, None)
    text = stream.getvalue()
    assert "hf_Ab" not in text
    assert text.count(REDACTED) >= 4


def test_a_command_shows_no_token_even_in_a_traceback(tmp_path: Path) -> None:
    program = (
        "from kit.cli.interpreter import use_project_python\n"
        f"use_project_python()\nimport sys\nprint('{HF}', file=sys.stderr)\nraise RuntimeError('{HF}')\n"
    )
    script = tmp_path / "command.py"
    script.write_text(program)
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT / "scripts")},
    )
    assert done.returncode == 1
    assert "RuntimeError" in done.stderr
    assert "hf_Ab" not in done.stderr.replace(program, "")


def test_it_needs_nothing_but_the_standard_library_and_little_of_that() -> None:
    code = "import sys, kit.cli.redaction; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(PROJECT_ROOT / 'scripts')!r}); {code}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"yaml", "torch", "cerberus", "typing_extensions", "requests"} & set(done.stdout.split())
