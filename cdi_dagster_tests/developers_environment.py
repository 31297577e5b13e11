"""What whoever runs the tests has set for work of their own, and no test means."""

import os
from collections.abc import MutableMapping

_OF_TESTS = ("CDI_TEST_", "CDI_FUZZ_EXAMPLES", "CDI_S3A_JARS")
_OF_THE_MACHINE = ("AWS_CA_BUNDLE", "AWS_EC2_METADATA_DISABLED")
_LEFT_OUT = (
    *("CDI_", "DAGSTER_HOME", "SPARK_HOME", "SPARK_CONF_DIR", "AWS_"),
    # Colours and spinners in output that is read, and warnings on a standard error that has to be empty.
    *("FORCE_COLOR", "PY_COLORS", "CLICOLOR", "TTY_", "PYTHONWARNINGS"),
)
_LOOPBACK = ("127.0.0.1", "localhost")


def leave_out_developers_settings(environment: MutableMapping[str, str] = os.environ) -> None:
    """Take out an installation's settings, and reach loopback without a proxy.

    With a shell set up for an installation (`CDI_DEPLOYMENT=emr`, a profile or keys of AWS, the Spark of a
    distribution) tests would load other definitions, start another Spark, and could reach a real account; through a
    proxy they would not reach their own servers; with colours forced they would read them. What the tests themselves
    take from the environment stays.
    """
    for name in list(environment):
        if name.startswith(_LEFT_OUT) and not name.startswith((*_OF_TESTS, *_OF_THE_MACHINE)):
            del environment[name]
    for name in ("NO_PROXY", "no_proxy"):
        there = [host for host in environment.get(name, "").split(",") if host]
        environment[name] = ",".join([*there, *(host for host in _LOOPBACK if host not in there)])
