"""Server-side encryption of what is written to S3: one choice for a process, for boto3 and for Spark's S3A alike.

Settings choose it (`CDI_S3_ENCRYPTION`, `CDI_S3_KMS_KEY`); child processes and executors get it by environment
variables, the driver on a cluster by arguments. No client-side encryption: docs/adr/0016.
"""

import os
from dataclasses import dataclass
from typing import Any

_ALGORITHM = "CDI_S3_ENCRYPTION"
_KMS_KEY = "CDI_S3_KMS_KEY"
_S3A_NAMES = {"AES256": "AES256", "aws:kms": "SSE-KMS"}
_WRITES = ("PutObject", "CreateMultipartUpload")
"""The requests that begin an object; parts of an upload take what it began with."""


@dataclass(frozen=True, kw_only=True)
class Encryption:
    """What each write requests.

    Attributes:
        algorithm: `AES256`, `aws:kms`, or "" to request nothing: the bucket's default then applies.
        kms_key: id or ARN of the KMS key; "" for the bucket's, or else the account's own for S3.
    """

    algorithm: str = ""
    kms_key: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What another process needs in its environment to write alike."""
        return {name: value for name, value in ((_ALGORITHM, self.algorithm), (_KMS_KEY, self.kms_key)) if value}

    @property
    def arguments(self) -> tuple[str, ...]:
        """What a Spark job needs as arguments: no variable of ours reaches a driver on a cluster."""
        options = (("--s3-encryption", self.algorithm), ("--s3-kms-key", self.kms_key))
        return tuple(part for option, value in options if value for part in (option, value))

    @property
    def spark_conf(self) -> dict[str, str]:
        """Spark's settings by which S3A and the executors write alike."""
        conf = {f"spark.executorEnv.{name}": value for name, value in self.environment.items()}
        if self.algorithm:
            conf["spark.hadoop.fs.s3a.encryption.algorithm"] = _S3A_NAMES[self.algorithm]
        if self.kms_key:
            conf["spark.hadoop.fs.s3a.encryption.key"] = self.kms_key
        return conf

    def add_to(self, parameters: dict[str, Any]) -> None:
        """Add to a request what it does not state itself."""
        if self.algorithm:
            parameters.setdefault("ServerSideEncryption", self.algorithm)
        if self.kms_key:
            parameters.setdefault("SSEKMSKeyId", self.kms_key)


_chosen: Encryption | None = None


def use_encryption(chosen: Encryption | None) -> None:
    """Choose what this process writes with from now on; None for what its environment names."""
    global _chosen
    _chosen = chosen


def encryption() -> Encryption:
    """Return what this process writes with."""
    return _chosen or Encryption(algorithm=os.environ.get(_ALGORITHM, ""), kms_key=os.environ.get(_KMS_KEY, ""))


def encrypt_writes(client: Any) -> Any:
    """Have an S3 client request this process's encryption for every object that it writes; return the client."""
    for operation in _WRITES:
        client.meta.events.register(f"before-parameter-build.s3.{operation}", _add_encryption)
    return client


def _add_encryption(params: dict[str, Any], **_: Any) -> None:
    encryption().add_to(params)
