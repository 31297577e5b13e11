"""What the tests of this package request of AWS, the shipped policies allow."""

from cdi_dagster_tests.aws_actions import only_allowed_actions  # noqa: F401 - a fixture of this package
