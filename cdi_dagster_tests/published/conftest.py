"""The S3 of the storage tests."""

from cdi_dagster_tests.storage.conftest import aws_environment, make_bucket

__all__ = ["aws_environment", "make_bucket"]
