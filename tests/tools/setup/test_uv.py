import pytest

from tools.setup import uv as uv_tool


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        # Each recorded from the pinned uv or from pip.
        ("cause: client error (Connect)\n cause: invalid peer certificate: UnknownIssuer", "certificate"),
        ("SSLError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]') - skipping\nERROR: No matching distribution", "certificate"),
        ("error: Failed to fetch: https://…\n cause: tcp connect error", "cannot be reached"),
        ("cause: failed to lookup address information: Name or service not known", "cannot be reached"),
        ("ERROR: No matching distribution found for uv==0.13.9", "cannot be reached"),
        ("error: failed to write: No space left on device (os error 28)", "the disk is full"),
        ("error: Failed to initialize cache at `…`\n  cause: failed to create directory", "cannot be written"),
        ("THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "not the one that was locked"),
        ("something nobody has seen yet", "it failed"),
    ],
)  # fmt: skip
def test_what_pip_and_uv_say_is_explained(output: str, expected: str) -> None:
    assert expected in uv_tool.diagnose(output, "it failed").message


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"])
def test_one_certificate_variable_serves_pip_uv_and_pip_audit(name: str) -> None:
    variables = uv_tool.tool_environment({name: "/ca.pem"})
    assert [variables[own] for own in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")] == ["/ca.pem"] * 3


def test_variables_that_lead_an_installation_astray_are_dropped() -> None:
    variables = uv_tool.tool_environment({"PIP_USER": "1", "PYTHONPATH": "/x", "VIRTUAL_ENV": "/y", "PATH": "/bin"})
    assert variables.keys() & {"PIP_USER", "PYTHONPATH", "VIRTUAL_ENV"} == set()
