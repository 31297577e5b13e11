"""The tests are the same in a shell that is set up for an installation."""

import os
import subprocess
import sys

from cdi_dagster_tests.developers_environment import leave_out_developers_settings
from cdi_dagster_tests.repository.files import REPOSITORY

PROXY = "http://127.0.0.1:9"
OF_AN_INSTALLATION = {
    "CDI_DEPLOYMENT": "emr",
    "DAGSTER_HOME": "/nowhere",
    "SPARK_HOME": "/nowhere",
    "SPARK_CONF_DIR": "/nowhere",
    "AWS_PROFILE": "nobody",
    "AWS_ENDPOINT_URL_S3": PROXY,
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_ACCESS_KEY_ID": "a-real-one",
    "FORCE_COLOR": "1",
    "TTY_COMPATIBLE": "1",
    "PYTHONWARNINGS": "always",
}
NEEDS_NONE_OF_IT = (
    "definitions/test_definitions.py",  # loads the definitions as it is imported
    "storage/test_s3.py::test_an_endpoint_that_nobody_serves_is_unavailable",
    "test_suite/test_aws_actions.py",  # asks a server on loopback
    "cli/test_day_by_hand.py",  # reads what a command prints
)


def test_settings_of_an_installation_are_not_those_of_the_tests() -> None:
    proxies = {name: PROXY for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")}
    not_of_these = {"NO_PROXY": "", "no_proxy": "", "PYTEST_ADDOPTS": ""}
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not spark and not slow"),
            *(f"cdi_dagster_tests/{name}" for name in NEEDS_NONE_OF_IT),
        ],
        cwd=REPOSITORY,
        env={**os.environ, **OF_AN_INSTALLATION, **proxies, **not_of_these},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-3000:]


def test_what_the_tests_take_from_the_environment_stays() -> None:
    of_tests = {"CDI_TEST_BACKFILL_DAYS": "31", "CDI_S3A_JARS": "/jars", "HTTPS_PROXY": PROXY, "AWS_CA_BUNDLE": "/ca"}
    environment = {**OF_AN_INSTALLATION, **of_tests, "NO_PROXY": "internal,localhost"}
    leave_out_developers_settings(environment)
    assert environment == {
        **of_tests,
        "NO_PROXY": "internal,localhost,127.0.0.1",
        "no_proxy": "127.0.0.1,localhost",
    }
