"""Reads secrets from AWS Secrets Manager, for whoever needs one in memory. Nothing is kept, logged or written here."""

import json

from cdi_dagster.aws.clients import client
from cdi_dagster.core.secret_reference import SecretReference

_TRANSIENT = frozenset({"InternalServiceError", "ThrottlingException", "RequestLimitExceeded"})


class SecretError(Exception):
    """A secret could not be read. The text names it and the reason, never its content.

    Attributes:
        is_transient: whether a later try may succeed.
    """

    def __init__(self, text: str, *, is_transient: bool = False) -> None:
        super().__init__(text)
        self.is_transient = is_transient


def read_secret(reference: SecretReference) -> str:
    """Return the text that a reference names.

    Raises:
        SecretError: there is none, or we may not read it.
    """
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
    from botocore.exceptions import ConnectionError as NoConnectionError

    named = f"the secret {reference.secret_id}"
    try:
        secrets = client("secretsmanager", region_name=reference.region)
        response = secrets.get_secret_value(SecretId=reference.secret_id)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        raise SecretError(f"{named} cannot be read ({code})", is_transient=code in _TRANSIENT) from error
    except BotoCoreError as error:
        unanswered = isinstance(error, (HTTPClientError, NoConnectionError))
        raise SecretError(f"{named} cannot be read ({type(error).__name__})", is_transient=unanswered) from error
    text = response.get("SecretString") or response.get("SecretBinary", b"").decode(errors="replace")
    return text if reference.json_key is None else _value(text, reference.json_key, named)


def _value(text: str, key: str, named: str) -> str:
    try:
        value = json.loads(text)[key]
    except (ValueError, KeyError, TypeError, IndexError):
        value = None
    if not isinstance(value, str):
        raise SecretError(f"{named} has no text under {key}: it must be a JSON object with that key")
    return value
