"""Stands for the AWS CLI of a cluster's nodes: `aws s3 cp --recursive --only-show-errors s3://bucket/prefix/ folder/`.

The machine that runs the tests need not have the CLI. Started by path, so it imports nothing of ours.
"""

import sys
from pathlib import Path
from urllib.parse import urlsplit

import boto3


def main(arguments: list[str]) -> int:
    *options, source, target = arguments
    if options != ["s3", "cp", "--recursive", "--only-show-errors"]:
        print(f"the shim does not know: aws {' '.join(arguments)}", file=sys.stderr)
        return 2
    where = urlsplit(source)
    prefix = where.path.lstrip("/")
    client = boto3.client("s3")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=where.netloc, Prefix=prefix):
        for row in page.get("Contents", ()):
            path = Path(target) / row["Key"].removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(where.netloc, row["Key"], str(path))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
