"""What is a reference to a secret, what is a path, and what may not stand in a setting at all."""

import pytest

from cdi_dagster.core.secret_reference import SecretReference, secret_reference

ARN = "arn:aws:secretsmanager:eu-west-2:123456789012:secret:cdi/client-AbCdEf"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("secretsmanager://cdi/client", SecretReference(secret_id="cdi/client")),
        ("secretsmanager://cdi/client#key", SecretReference(secret_id="cdi/client", json_key="key")),
        (ARN, SecretReference(secret_id=ARN, region="eu-west-2")),
        (f"{ARN}#key", SecretReference(secret_id=ARN, region="eu-west-2", json_key="key")),
        ("/etc/cdi/client.pem", None),
        ("client#1.pem", None),
    ],
)
def test_references_and_paths(text: str, expected: SecretReference | None) -> None:
    assert secret_reference(text) == expected


@pytest.mark.parametrize("text", ["secretsmanager://", "s3://bucket/client.pem", "arn:aws:s3:::bucket", f"{ARN}#"])
def test_what_is_neither_is_refused_with_how_to_write_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"write secretsmanager://name\[#json-key\]"):
        secret_reference(text)


def test_a_key_itself_is_refused_and_not_quoted() -> None:
    with pytest.raises(ValueError, match="this is the PEM itself") as caught:
        secret_reference("-----BEGIN PRIVATE KEY-----\nMIIE")
    assert "MIIE" not in str(caught.value)
