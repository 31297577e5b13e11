"""References to secrets in AWS Secrets Manager, as settings and arguments have them: they may be seen, secrets may not.

What a reference names is read by `aws.secrets`, where it is needed.
"""

import re
from dataclasses import dataclass

_NAME = r"[\w/+=.@-]{1,512}"
_REFERENCE = re.compile(
    rf"(?:secretsmanager://(?P<name>{_NAME})"
    rf"|(?P<arn>arn:aws[a-z-]*:secretsmanager:(?P<region>[a-z0-9-]+):[0-9]{{12}}:secret:{_NAME}))(?:#(?P<key>[^#]+))?",
    re.ASCII,
)


@dataclass(frozen=True, kw_only=True)
class SecretReference:
    """Where a secret is.

    Attributes:
        secret_id: its name or ARN.
        json_key: which text of a secret that is a JSON object; None for the whole secret.
        region: of the ARN; None for the installation's.
    """

    secret_id: str
    json_key: str | None = None
    region: str | None = None


def secret_reference(text: str) -> SecretReference | None:
    """Return the reference that a text is; None where it is a path.

    Raises:
        ValueError: it is neither; the message does not quote it, for it may be a secret.
    """
    if match := _REFERENCE.fullmatch(text):
        return SecretReference(
            secret_id=match["name"] or match["arn"], json_key=match["key"], region=match["region"] or None
        )
    if "-----BEGIN" in text:
        raise ValueError("this is the PEM itself: write the path of its file, or secretsmanager://name[#json-key]")
    if "://" in text or text.startswith("arn:"):
        raise ValueError(
            "not a path and not a secret: write secretsmanager://name[#json-key] or the secret's ARN[#json-key]"
        )
    return None
