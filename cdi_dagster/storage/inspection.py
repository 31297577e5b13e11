"""What S3 itself reports of a root: region, encryption of an object, an unfinished upload. For checks only.

Work on objects goes through `Storage`; this is for those who check whether an installation can do that work.
"""

from cdi_dagster.storage.encryption import Encryption
from cdi_dagster.storage.interface import PreparedObject
from cdi_dagster.storage.s3_bucket import S3Bucket
from cdi_dagster.storage.s3_upload import upload_is_there


def bucket_region(root: str) -> str:
    """Return the region of an `s3://` root's bucket; "" where S3 does not state it. Raises StorageError."""
    response = _bucket(root).call("head_bucket", "check", "")
    return str(response["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", ""))


def encryption_of(root: str, key: str) -> Encryption:
    """Return how S3 encrypted an object below an `s3://` root. Raises StorageError."""
    bucket = _bucket(root)
    response = bucket.call("head_object", "check", key, Key=bucket.full(key))
    return Encryption(algorithm=response.get("ServerSideEncryption", ""), kms_key=response.get("SSEKMSKeyId", ""))


def is_upload_listed(root: str, prepared: PreparedObject) -> bool:
    """Return whether S3 lists the parts of an unfinished upload below an `s3://` root. Raises StorageError."""
    return upload_is_there(_bucket(root), prepared)


def _bucket(root: str) -> S3Bucket:
    return S3Bucket(root, endpoint_url=None, region_name=None)
