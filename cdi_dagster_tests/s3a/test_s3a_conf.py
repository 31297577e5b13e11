"""Which jars local Spark needs for S3, what is said where they are missing, and the settings, which name no secret."""

from pathlib import Path

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.spark_jobs import INGEST_DAILY, PUBLISH_TABLES, SparkJob
from cdi_dagster.local_spark import spark_submit
from cdi_dagster.local_spark.s3a_conf import find_s3a_jars, s3a_class_path, s3a_conf, s3a_conf_here
from cdi_dagster.local_spark.spark_submit import SparkProcessConfig, s3a_jars, spark_environment, spark_submit_command
from cdi_dagster.storage import Encryption, use_encryption

JARS = ("hadoop-aws-3.3.4.jar", "aws-java-sdk-bundle-1.12.262.jar", "spark-hadoop-cloud_2.12-3.5.5.jar")


@pytest.fixture
def pyspark(tmp_path: Path) -> Path:
    """A pyspark 3.5, as far as its jars' names tell."""
    return folder_with(tmp_path / "pyspark" / "jars", "hadoop-client-api-3.3.4.jar", "spark-core_2.12-3.5.6.jar").parent


def folder_with(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_the_jars_that_make_fetches_fit_the_installed_spark(s3a_jars: tuple[Path, ...]) -> None:
    assert any(jar.name.startswith("hadoop-aws-") for jar in s3a_jars)


def test_missing_jars_are_named_with_the_command_that_fetches_them(pyspark: Path, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "jars", JARS[0])
    with pytest.raises(CdiError) as caught:
        find_s3a_jars(pyspark, folder)
    failure = caught.value
    assert failure.failure_class is FailureClass.LAUNCH_FAILED
    assert "aws-java-sdk-bundle" in failure.cause
    assert "spark-hadoop-cloud" in failure.cause
    assert "hadoop-aws" not in failure.cause
    assert "make s3a-jars" in failure.next_step
    assert "CDI_S3A_JARS" in failure.next_step


def test_s3a_of_another_hadoop_is_refused(pyspark: Path, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "jars", "hadoop-aws-3.4.1.jar", *JARS[1:])
    with pytest.raises(CdiError, match=r"lacks S3A of Hadoop 3\.3\.4 \(hadoop-aws-3\.3\.4\.jar\)"):
        find_s3a_jars(pyspark, folder)


def test_for_spark_4_its_own_jars_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pyspark = folder_with(tmp_path / "4" / "jars", "hadoop-client-api-3.4.1.jar", "spark-core_2.13-4.0.1.jar").parent
    with pytest.raises(CdiError) as caught:
        find_s3a_jars(pyspark)
    assert caught.value.next_step == "Run make s3a-jars SPARK=4.0."
    names = ("bundle-2.24.6.jar", "hadoop-aws-3.4.1.jar", "spark-hadoop-cloud_2.13-4.0.1.jar")
    folder = folder_with(tmp_path / ".cdi" / "jars" / "spark-4.0", *names)
    assert find_s3a_jars(pyspark) == tuple(folder / name for name in names)


def test_the_settings_go_where_boto3_goes_and_hold_no_credentials() -> None:
    environment = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:5000",
        "AWS_DEFAULT_REGION": "eu-west-2",
        "AWS_ACCESS_KEY_ID": "our-key",
        "AWS_SECRET_ACCESS_KEY": "our-secret",
    }
    conf = s3a_conf_here(environment)
    assert conf["spark.hadoop.fs.s3a.endpoint"] == "http://127.0.0.1:5000"
    assert conf["spark.hadoop.fs.s3a.connection.ssl.enabled"] == "false"
    assert conf["spark.hadoop.fs.s3a.endpoint.region"] == "eu-west-2"
    assert not {"our-key", "our-secret"} & set(conf.values())


def test_s3a_encrypts_as_this_process_does() -> None:
    assert not [name for name in s3a_conf_here({}) if "encryption" in name]
    use_encryption(Encryption(algorithm="aws:kms", kms_key="our-key"))
    try:
        conf, environment = s3a_conf_here({}), spark_environment(Path("/usr/bin/java"))
    finally:
        use_encryption(None)
    assert conf["spark.hadoop.fs.s3a.encryption.algorithm"] == "SSE-KMS"
    assert conf["spark.hadoop.fs.s3a.encryption.key"] == "our-key"
    assert (environment["CDI_S3_ENCRYPTION"], environment["CDI_S3_KMS_KEY"]) == ("aws:kms", "our-key")


def test_the_jars_come_last_on_the_class_path_as_javas_archive_of_spark_needs_it(
    tmp_path: Path, pyspark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark_submit, "pyspark_folder", lambda: pyspark)
    config = SparkProcessConfig(work_folder=tmp_path, s3a_jars=folder_with(tmp_path / "jars", *JARS))
    jars = s3a_jars(PUBLISH_TABLES, ["--published-root", "s3://bucket"], config=config)
    assert sorted(jar.name for jar in jars) == sorted(JARS)
    environment = spark_environment(Path("/usr/bin/java"), jars)
    assert environment["SPARK_DIST_CLASSPATH"] == ":".join(map(str, jars))
    command = spark_submit_command(PUBLISH_TABLES, ["--published-root", "s3://bucket"], config=config)
    assert not [part for part in command if "extraClassPath" in part]
    assert s3a_class_path(jars, {"SPARK_DIST_CLASSPATH": "/theirs.jar"})["SPARK_DIST_CLASSPATH"].startswith(
        "/theirs.jar:"
    )
    assert s3a_class_path((), {"SPARK_DIST_CLASSPATH": "/theirs.jar"}) == {}


def test_on_aws_itself_no_endpoint_is_set() -> None:
    assert not [name for name in s3a_conf(region="eu-west-2") if name.endswith((".endpoint", "path.style.access"))]


def test_tables_on_s3_are_not_begun_without_the_jars(
    tmp_path: Path, pyspark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark_submit, "pyspark_folder", lambda: pyspark)
    config = SparkProcessConfig(work_folder=tmp_path, s3a_jars=tmp_path / "none")
    with pytest.raises(CdiError, match="make s3a-jars"):
        spark_submit_command(PUBLISH_TABLES, ["--published-root", "s3://bucket"], config=config)


def test_what_somebody_set_comes_before_our_settings(
    tmp_path: Path, pyspark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark_submit, "pyspark_folder", lambda: pyspark)
    conf = {"spark.hadoop.fs.s3a.committer.name": "theirs"}
    config = SparkProcessConfig(work_folder=tmp_path, s3a_jars=folder_with(tmp_path / "jars", *JARS), conf=conf)
    command = spark_submit_command(PUBLISH_TABLES, ["--published-root", "s3://bucket"], config=config)
    assert "spark.hadoop.fs.s3a.committer.name=theirs" in command
    assert "spark.hadoop.fs.s3a.committer.name=magic" not in command


@pytest.mark.parametrize(("job", "root"), [(PUBLISH_TABLES, "file:///folder"), (INGEST_DAILY, "s3://bucket")])
def test_other_steps_and_folders_need_no_jars(tmp_path: Path, job: SparkJob, root: str) -> None:
    config = SparkProcessConfig(work_folder=tmp_path, s3a_jars=tmp_path / "none")
    assert not [part for part in spark_submit_command(job, ["--published-root", root], config=config) if "s3a" in part]
