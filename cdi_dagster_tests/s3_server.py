"""One S3 server (moto) for all tests of a process: started at the first use, on loopback, ended with the process."""

import os
import uuid
from functools import cache
from threading import Thread

from cdi_dagster.storage import Storage, open_storage

REGION = "eu-west-2"


@cache
def s3_endpoint() -> str:
    """Return the server's URL; credentials that it accepts are put into the environment, unless some are there."""
    from werkzeug.serving import make_server

    from cdi_dagster_tests.moto_application import MotoApplication  # half a second of CPU, which most need not spend

    server = make_server("127.0.0.1", 0, MotoApplication(), threaded=True)
    Thread(target=server.serve_forever, daemon=True).start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.setdefault(name, "testing")
    return f"http://127.0.0.1:{server.server_port}"


def new_s3_storage(*, versioned: bool = False) -> Storage:
    """Return a storage over a new, empty bucket."""
    import boto3

    endpoint = s3_endpoint()
    bucket = f"bucket-{uuid.uuid4().hex}"
    client = boto3.client("s3", endpoint_url=endpoint, region_name=REGION)
    client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    if versioned:
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return open_storage(f"s3://{bucket}", endpoint_url=endpoint, region_name=REGION)
