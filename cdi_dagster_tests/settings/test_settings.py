"""Settings are validated before anything starts, and each message states the fix."""

import os
from datetime import date, time
from pathlib import Path

import pytest

from cdi_dagster.local_spark.spark_submit import SparkProcessConfig
from cdi_dagster.resources.local_launcher import LocalPySparkStepLauncher
from cdi_dagster.settings import ENV_FILE_NAME, Settings, SettingsError, _name_relative_home, load_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in [name for name in os.environ if name.startswith("CDI_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    _name_relative_home.cache_clear()


def problems_of(**environment: str) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with pytest.raises(SettingsError) as caught:
            load_settings()
    return caught.value.problems


def test_without_any_variable_everything_lies_below_the_home_folder(tmp_path: Path) -> None:
    settings = load_settings()
    home = tmp_path / ".cdi"
    assert settings.deployment == "local"
    assert settings.corporate_root == (home / "corporate").as_uri()
    assert settings.published_root == (home / "published").as_uri()
    assert settings.dagster_home == home / "dagster_home"
    assert settings.metastore_path == home / "metastore"
    assert settings.status_path == home / "status"
    assert (settings.due_time, settings.late_time) == (time(9, 30), time(12, 0))
    assert not settings.automation


def test_local_steps_run_a_lost_task_again_unless_set_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().spark_master == "local[*,4]"  # of plain local[*], one killed worker ends the job
    assert SparkProcessConfig(work_folder=Path("work")).master == "local[*,4]"
    launcher = LocalPySparkStepLauncher(work_folder="work", metastore_folder="metastore")
    assert launcher.master == "local[*,4]"
    monkeypatch.setenv("CDI_SPARK_MASTER", "local[1,2]")
    assert load_settings().spark_master == "local[1,2]"


@pytest.mark.parametrize(
    "master", ["local", "local[2]", "local[*]", "local[*,4]", "local[2, 4]", "yarn", "spark://host:7077", "k8s://host"]
)
def test_what_spark_takes_as_a_master_is_taken(monkeypatch: pytest.MonkeyPatch, master: str) -> None:
    monkeypatch.setenv("CDI_SPARK_MASTER", master)
    assert load_settings().spark_master == master


def test_environment_wins_over_the_file_in_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ENV_FILE_NAME).write_text("CDI_FIRST_STORAGE_DAY=2023-03-24\nCDI_MAX_REJECTED=5\n")
    monkeypatch.setenv("CDI_HOME", str(tmp_path))
    monkeypatch.setenv("CDI_MAX_REJECTED", "0.1%")
    settings = load_settings()
    assert settings.first_storage_day == date(2023, 3, 24)
    assert settings.max_rejected == "0.1%"


def test_home_given_as_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CDI_HOME", str(tmp_path / "elsewhere"))
    assert load_settings(home=tmp_path / "here").published_root == (tmp_path / "here" / "published").as_uri()


@pytest.mark.parametrize(
    ("variable", "value", "fix"),
    [
        ("CDI_CORPORATE_ROOT", "s3:/x", "CDI_CORPORATE_ROOT='s3:/x' is not a root: write file:///absolute/folder or "),
        ("CDI_PUBLISHED_ROOT", "file://data", "is not a root: write file:///absolute/folder or s3://bucket"),
        ("CDI_PUBLISHED_ROOT", "/data", "is not a root"),
        ("CDI_PUBLISHED_ROOT", "s3://Bucket_", "is not a root"),
        ("CDI_MAX_REJECTED", "some", "CDI_MAX_REJECTED='some' is not a limit: write a count such as 25"),
        ("CDI_MAX_REJECTED", "101%", "is not a limit"),
        ("CDI_DKS_URL", "dks:8443", "CDI_DKS_URL='dks:8443' is not an address: write https://host:port"),
        ("CDI_FIRST_STORAGE_DAY", "26/03/2023", "is not a day: write it as YYYY-MM-DD"),
        ("CDI_FIRST_STORAGE_DAY", "2999-01-01", "CDI_FIRST_STORAGE_DAY='2999-01-01' is in the future, so no day could"),
        ("CDI_SPARK_MASTER", "banana", "CDI_SPARK_MASTER='banana' is not a Spark master: write local[*,4], "),
        ("CDI_SPARK_MASTER", "local[0]", "is not a Spark master"),
        ("CDI_SPARK_MASTER", "spark://", "is not a Spark master"),
        ("CDI_DUE_TIME", "half nine", "is not a time of day: write HH:MM"),
        ("CDI_SPARK_DRIVER_MEMORY", "lots", "is not an amount of memory: write 2g or 1500m"),
        ("CDI_SPARK_CONF", "a=b", "CDI_SPARK_CONF: not a JSON object of texts: write {"),
        ("CDI_DEPLOYMENT", "moon", "CDI_DEPLOYMENT='moon' cannot be used: input should be 'local' or 'emr'"),
        ("CDI_LATE_TIME", "08:00", "CDI_LATE_TIME 08:00 is not after CDI_DUE_TIME 09:30: make it later"),
        ("CDI_DKS_CERTIFICATE", "/tls/c.pem", "belong together: set both, or neither"),
        ("CDI_COPORATE_ROOT", "s3://bucket", "CDI_COPORATE_ROOT is not a setting: did you mean CDI_CORPORATE_ROOT?"),
    ],
)
def test_a_wrong_value_is_answered_with_its_fix(variable: str, value: str, fix: str) -> None:
    assert any(fix in problem for problem in problems_of(**{variable: value}))


def test_a_private_key_in_the_setting_is_refused_and_not_quoted() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIE"
    text = "\n".join(problems_of(CDI_DKS_PRIVATE_KEY=key, CDI_DKS_CERTIFICATE="s3://bucket/client.pem"))
    assert "CDI_DKS_PRIVATE_KEY: this is the PEM itself: write the path of its file, or secretsmanager://name" in text
    assert "CDI_DKS_CERTIFICATE: not a path and not a secret: write secretsmanager://name[#json-key]" in text
    assert "MIIE" not in text


def test_every_problem_is_named_at_once() -> None:
    problems = problems_of(CDI_CORPORATE_ROOT="x", CDI_MAX_REJECTED="y", CDI_DKS_URL="z")
    assert len(problems) == 3


def test_emr_without_its_places_says_which_variables_to_set() -> None:
    text = "\n".join(problems_of(CDI_DEPLOYMENT="emr"))
    for variable in ("CDI_CORPORATE_ROOT", "CDI_PUBLISHED_ROOT", "CDI_DKS_URL", "CDI_FIRST_STORAGE_DAY"):
        assert variable in text


@pytest.mark.parametrize(
    ("corporate", "published"),
    [
        ("s3://bucket", "s3://bucket/"),
        ("s3://bucket", "s3://bucket/published"),
        ("file:///data/corporate", "file:///data/x/../corporate/published"),
        ("file:///data/corporate", "file:///data/%63orporate"),
    ],
)
def test_publishing_into_corporate_storage_is_refused(corporate: str, published: str) -> None:
    (problem,) = problems_of(CDI_CORPORATE_ROOT=corporate, CDI_PUBLISHED_ROOT=published)
    assert problem.endswith("or lies in it: publish to another bucket or folder")


@pytest.mark.parametrize("published", ["s3://bucket/corporate-data", "s3://bucket/published", "s3://bucket"])
def test_publishing_beside_corporate_storage_is_not(published: str) -> None:
    assert load_settings(corporate_root="s3://bucket/corporate", published_root=published).published_root == published


def test_a_link_to_corporate_storage_is_no_other_folder(tmp_path: Path) -> None:
    (tmp_path / "corporate").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "corporate")
    (problem,) = problems_of(
        CDI_CORPORATE_ROOT=(tmp_path / "corporate").as_uri(), CDI_PUBLISHED_ROOT=(tmp_path / "link").as_uri()
    )
    assert "CDI_PUBLISHED_ROOT is CDI_CORPORATE_ROOT, or lies in it" in problem


def test_spark_configuration_is_read_from_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDI_SPARK_CONF", '{"spark.sql.shuffle.partitions": 8}')
    assert load_settings().spark_conf == {"spark.sql.shuffle.partitions": "8"}


def test_every_setting_says_what_it_is_for() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert len(field.description) > 40, name


@pytest.mark.parametrize("character", list("%?[]*"))
def test_a_dagster_home_in_which_dagster_fails_or_drops_our_configuration_is_refused(character: str) -> None:
    (problem,) = problems_of(DAGSTER_HOME=f"/srv/dagster{character}1")
    assert "Name a folder without" in problem
    assert repr(character) in problem


def test_a_home_below_the_current_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load_settings()
    assert f"CDI_HOME is not set: this uses {tmp_path / '.cdi'}" in caplog.text
    monkeypatch.setenv("CDI_HOME", "relative-home")
    load_settings()
    assert f"CDI_HOME is relative-home: this uses {tmp_path / 'relative-home'}" in caplog.text
    caplog.clear()
    monkeypatch.setenv("CDI_HOME", str(tmp_path))
    load_settings()
    assert caplog.text == ""
