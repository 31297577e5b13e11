"""The cluster template: what is shipped can be used, and what cannot be used comes with its fix."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

import cdi_dagster
from cdi_dagster.core.spark_jobs import INGEST_DAILY
from cdi_dagster.emr.clusters.request import (
    estimated_cost,
    instances_by_type,
    job_flow_request,
    step_request,
    template_problems,
)
from cdi_dagster.emr.clusters.sizing import cores_of, idle_cores
from cdi_dagster.emr.clusters.template import JAVA_OPTIONS, TemplateError, load_template
from cdi_dagster.interfaces import SparkStep
from cdi_dagster.storage import Encryption
from cdi_dagster_tests.collections import AUDIT

SHIPPED = Path(cdi_dagster.__file__).parents[1] / "deploy" / "emr" / "cluster.yaml"
TESTED = Path(__file__).with_name("template.yaml")


def write(folder: Path, **changes: Any) -> Path:
    """Write the tests' template with some parts changed."""
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(TESTED.read_text()), **changes}))
    return path


def problems_of(path: Path, **chosen: str) -> str:
    with pytest.raises(TemplateError) as caught:
        load_template(path, **chosen)
    return "\n".join(caught.value.problems)


def test_the_shipped_template_only_waits_to_be_filled_in(tmp_path: Path) -> None:
    problems = template_problems(SHIPPED)
    assert problems
    assert all("CHANGE-ME" in problem for problem in problems)
    filled = tmp_path / "cluster.yaml"
    filled.write_text(SHIPPED.read_text().replace("CHANGE-ME", "ours"))
    assert template_problems(filled) == []


def test_what_an_environment_and_a_collection_override_is_merged(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        configurations=[{"Classification": "spark", "Properties": {"a": "1", "b": "1"}}],
        overrides={
            "environments": {
                "production": {
                    "cluster": {"JobFlowRole": "theirs"},
                    "configurations": [{"Classification": "spark", "Properties": {"b": "2"}}],
                }
            },
            "collections": {"data:equality": {"profiles": [{"name": "small", "up_to_input_bytes": 5}]}},
        },
    )
    template = load_template(path, environment="production", collection_id="data:equality")
    assert template.cluster["JobFlowRole"] == "theirs"
    assert template.cluster["ServiceRole"] == "role"
    assert template.configurations == [{"Classification": "spark", "Properties": {"a": "1", "b": "2"}}]
    assert [(p.name, p.up_to_input_bytes) for p in template.ladder] == [("small", 5), ("medium", 2000), ("large", None)]
    assert template.profile("small").fleets
    assert load_template(path).cluster["JobFlowRole"] == "profile"


def test_an_environment_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    path = write(tmp_path, overrides={"environments": {"production": {}}})
    assert "has no prod (it has: production)" in problems_of(path, environment="prod")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"configurations": [{"Classification": "hive-site", "Properties": {"x.ConnectionPassword": "hunter2"}}]},
            "x.ConnectionPassword holds its secret in the file: put it into Secrets Manager, write EMR.secret@<ARN>",
        ),
        ({"step": {"spark_conf": {"spark.hadoop.fs.s3a.secret.key": "x"}}}, "anyone who lists steps can read"),
        (
            {"configurations": [{"Classification": "spark-defaults", "Properties": {JAVA_OPTIONS[0]: "-Dx"}}]},
            "spark-defaults: spark.driver.extraJavaOptions would be replaced by the step's: move it to step.spark_conf",
        ),
        (
            {"bootstrap_actions": [{"Name": "proxy", "ScriptBootstrapAction": {"Path": "proxy.sh"}}]},
            "bootstrap_actions, number 1: write Name, and ScriptBootstrapAction with the Path of a script",
        ),
        (
            {"bootstrap_actions": [{"Name": "proxy", "ScriptBootstrapAction": {"Path": "s3://b/k"}}] * 16},
            "bootstrap_actions: 16 are too many; EMR takes 15 beside ours",
        ),
        (
            {"bootstrap_actions": [{"Name": "a", "ScriptBootstrapAction": {"Path": "s3://b/CHANGE-ME"}}]},
            "bootstrap_actions[a].ScriptBootstrapAction.Path still has CHANGE-ME",
        ),
        ({"tags": {"who": "AKIAABCDEFGHIJKLMNOP"}}, "tags.who looks like a key: take it out, revoke it"),
        ({"profile": []}, "profile is not a part of a template"),
        ({"profiles": []}, "profiles: list should have at least 1 item"),
    ],
)
def test_what_cannot_be_used_comes_with_its_fix(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    assert expected in problems_of(write(tmp_path, **changes))


def test_secrets_by_reference_and_names_that_only_sound_secret_are_fine(tmp_path: Path) -> None:
    properties = {
        "javax.jdo.option.ConnectionPassword": "EMR.secret@arn:aws:secretsmanager:eu-west-2:1:secret:metastore",
        "hadoop.security.credential.provider.path": "jceks://x",
        "fs.s3a.secret.key.provider": "x",
    }
    load_template(write(tmp_path, configurations=[{"Classification": "hive-site", "Properties": properties}]))


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        ({"Steps": []}, "cluster.Steps: the launcher sets it"),
        ({"Instances": {"KeepJobFlowAliveWhenNoSteps": True}}, "so that what it starts always ends"),
        ({"BootstrapActions": []}, "yours go into bootstrap_actions"),
        ({"LogUri": ""}, "cluster.LogUri is missing"),
        ({"LogUri": "file:///x"}, "is not an s3:// URI"),
        ({"AutoTerminationPolicy": {"IdleTimeout": 3600}}, "take it out (from CDI_EMR_IDLE_SECONDS)"),
    ],
)
def test_what_the_launcher_must_decide_is_refused(tmp_path: Path, cluster: dict[str, Any], expected: str) -> None:
    base = yaml.safe_load(TESTED.read_text())["cluster"]
    assert expected in problems_of(write(tmp_path, cluster={**base, **cluster}))


def test_one_instance_type_is_one_too_few(tmp_path: Path) -> None:
    profiles = yaml.safe_load(TESTED.read_text())["profiles"]
    profiles[0]["fleets"][1]["InstanceTypeConfigs"].pop()
    assert "the CORE fleet names 1 instance type(s)" in problems_of(write(tmp_path, profiles=profiles))


@pytest.mark.parametrize(
    "instance_type", ["m7g.xlarge", "c6gn.2xlarge", "im4gn.large", "x2gd.xlarge", "a1.xlarge", "g5g.xlarge"]
)
def test_graviton_is_refused_with_the_reason(tmp_path: Path, instance_type: str) -> None:
    profiles = yaml.safe_load(TESTED.read_text())["profiles"]
    profiles[1]["fleets"][1]["InstanceTypeConfigs"][0]["InstanceType"] = instance_type
    problems = problems_of(write(tmp_path, profiles=profiles))
    assert (
        f"profile medium: {instance_type} is Graviton (arm64), and the wheels of the bundle are for x86_64" in problems
    )


def test_types_whose_family_is_called_g_are_not_graviton(tmp_path: Path) -> None:
    profiles = yaml.safe_load(TESTED.read_text())["profiles"]
    profiles[1]["fleets"][1]["InstanceTypeConfigs"] = [
        {"InstanceType": "g4dn.xlarge"},
        {"InstanceType": "m7i-flex.large"},
    ]
    load_template(write(tmp_path, profiles=profiles))


def test_the_shipped_template_uses_every_core_and_states_every_disk(tmp_path: Path) -> None:
    filled = tmp_path / "cluster.yaml"
    filled.write_text(SHIPPED.read_text().replace("CHANGE-ME", "ours"))
    template = load_template(filled)
    assert template.idle_cores() == []
    core = [
        choice["InstanceType"]
        for profile in template.profiles
        for fleet in profile.fleets
        if fleet["InstanceFleetType"] == "CORE"
        for choice in fleet["InstanceTypeConfigs"]
    ]
    assert all(cores_of(instance_type) for instance_type in core), "a type that the check does not know"
    for profile in template.profiles:
        for fleet in profile.fleets:
            for choice in fleet["InstanceTypeConfigs"]:
                [disk] = choice["EbsConfiguration"]["EbsBlockDeviceConfigs"]
                assert disk["VolumeSpecification"]["SizeInGB"] >= 64


@pytest.mark.parametrize(
    ("types", "conf", "mode", "expected"),
    [
        (
            ["m5.xlarge"],
            ("4", "8g", "4g"),
            "client",
            [
                "4 of 4 cores idle on the m5.xlarge with the application master "
                "(1 executors of 12,288 MB and 4 cores in 12,288 MB, of which it takes 896)"
            ],
        ),
        (
            ["m5.2xlarge", "m5a.2xlarge"],
            ("4", "16g", "8g"),
            "client",
            [
                "4 of 8 cores idle on m5.2xlarge (1 executors of 24,576 MB and 4 cores in 24,576 MB)",
                "4 of 8 cores idle on m5a.2xlarge (1 executors of 24,576 MB and 4 cores in 24,576 MB)",
            ],
        ),
        (["m5.2xlarge"], ("4", "7g", "4g"), "client", []),
        (
            ["m5.2xlarge"],
            ("4", "7g", "4g"),
            "cluster",
            [
                "4 of 8 cores idle on the m5.2xlarge with the application master "
                "(2 executors of 11,264 MB and 4 cores in 24,576 MB, of which it takes 7,296)"
            ],
        ),
        (["r5.2xlarge"], ("8", "36g", "18g"), "client", []),
        (["r5.2xlarge"], ("8", "36g", None), "client", []),
        (["s1.x", "m5.2xlarge"], ("4", None, None), "client", []),
    ],
)
def test_cores_that_idle_are_named_with_the_arithmetic(
    types: list[str], conf: tuple[str | None, ...], mode: str, expected: list[str]
) -> None:
    fleets = [
        {"InstanceFleetType": "MASTER", "InstanceTypeConfigs": [{"InstanceType": "m5.4xlarge"}]},
        {"InstanceFleetType": "CORE", "InstanceTypeConfigs": [{"InstanceType": name} for name in types]},
    ]
    names = ("spark.executor.cores", "spark.executor.memory", "spark.executor.memoryOverhead")
    given = {name: value for name, value in zip(names, conf, strict=True) if value} | {"spark.driver.memory": "6g"}
    assert list(idle_cores(fleets, given, deploy_mode=mode)) == expected


def test_an_executor_that_fits_no_node_is_refused(tmp_path: Path) -> None:
    profiles = yaml.safe_load(TESTED.read_text())["profiles"]
    profiles[0]["fleets"][1]["InstanceTypeConfigs"] = [{"InstanceType": "m5.xlarge"}, {"InstanceType": "m5.2xlarge"}]
    profiles[0]["spark_conf"] = {"spark.executor.memory": "8g", "spark.executor.memoryOverhead": "5g"}
    assert problems_of(write(tmp_path, profiles=profiles)) == (
        "profile small: no executor fits m5.xlarge: an executor takes 13,312 MB, and YARN has 12,288 MB there; make it "
        "smaller, or the type larger"
    )


def requested_configurations(path: Path, **chosen: str) -> dict[str, dict[str, str]]:
    template = load_template(path, **chosen)
    request = job_flow_request(
        template, template.profiles[0], name="n", step={}, tags={}, bundle_uri="s3://b/1", idle_seconds=60
    )
    return {entry["Classification"]: entry["Properties"] for entry in request["Configurations"]}


def test_tables_are_registered_in_glue_unless_the_template_names_a_hive_metastore(tmp_path: Path) -> None:
    factory = "com.amazonaws.glue.catalog.metastore.AWSGlueDataCatalogHiveClientFactory"
    glue = {"hive.metastore.client.factory.class": factory}
    assert requested_configurations(write(tmp_path)) == {"hive-site": glue, "spark-hive-site": glue}
    other = requested_configurations(write(tmp_path, metastore={"kind": "glue", "catalog_id": "123456789012"}))
    assert other["spark-hive-site"] == {**glue, "hive.metastore.glue.catalogid": "123456789012"}


def test_an_environment_may_have_a_hive_metastore_in_place_of_glue(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        metastore={"kind": "glue"},
        configurations=[{"Classification": "hive-site", "Properties": {"a": "1"}}],
        overrides={"environments": {"production": {"metastore": {"kind": "hive", "uris": "thrift://metastore:9083"}}}},
    )
    assert requested_configurations(path, environment="production") == {
        "hive-site": {"hive.metastore.uris": "thrift://metastore:9083", "a": "1"},
        "spark-hive-site": {"hive.metastore.uris": "thrift://metastore:9083"},
    }


def test_a_hive_metastore_may_be_named_by_its_database(tmp_path: Path) -> None:
    properties = {
        "javax.jdo.option.ConnectionURL": "jdbc:mysql://db:3306/hive",
        "javax.jdo.option.ConnectionPassword": "EMR.secret@arn:aws:secretsmanager:eu-west-2:1:secret:metastore",
    }
    hive_site = {"Classification": "hive-site", "Properties": properties}
    path = write(tmp_path, metastore={"kind": "hive"}, configurations=[hive_site])
    assert requested_configurations(path) == {"hive-site": properties}
    assert template_problems(path) == []


@pytest.mark.parametrize(
    ("metastore", "properties", "expected"),
    [
        ({"kind": "hive"}, {}, "needs uris (thrift://host:9083), or the javax.jdo.option.ConnectionURL"),
        (
            {"kind": "hive", "uris": "thrift://m:9083"},
            {"hive.metastore.client.factory.class": "x"},
            "would replace the Hive metastore that metastore names: take it out",
        ),
        ({"kind": "glue", "uris": "thrift://m:9083"}, {}, "write kind: hive, or take it out"),
        ({"kind": "hive", "uris": "thrift://m:9083", "catalog_id": "123456789012"}, {}, "write kind: glue"),
        ({"kind": "hive", "uris": "m:9083"}, {}, "metastore.uris"),
        ({"kind": "derby"}, {}, "metastore.kind"),
    ],
)
def test_a_metastore_that_does_not_fit_together_is_refused(
    tmp_path: Path, metastore: dict[str, str], properties: dict[str, str], expected: str
) -> None:
    configurations = [{"Classification": "spark-hive-site", "Properties": properties}]
    assert expected in problems_of(write(tmp_path, metastore=metastore, configurations=configurations))


def test_emrs_own_model_finds_what_emr_would_refuse(tmp_path: Path) -> None:
    base = yaml.safe_load(TESTED.read_text())["cluster"]
    path = write(tmp_path, cluster={**base, "ReleaseLabl": "emr-7.13.0"})
    [problem, *_] = template_problems(path)
    assert 'Unknown parameter in input: "ReleaseLabl"' in problem
    action = {"Name": "proxy", "ScriptBootstrapAction": {"Path": "s3://b/k", "Arguments": ["x"]}}
    [problem, *_] = template_problems(write(tmp_path, bootstrap_actions=[action]))
    assert 'Unknown parameter in BootstrapActions[0].ScriptBootstrapAction: "Arguments"' in problem


def test_a_file_that_is_not_there_says_which_setting_names_it(tmp_path: Path) -> None:
    assert "set CDI_EMR_TEMPLATE" in problems_of(tmp_path / "none.yaml")


def test_cost_is_estimated_from_the_first_type_of_each_fleet() -> None:
    template = load_template(TESTED)
    assert instances_by_type(template.profile("medium")) == {"m1.x": 5}
    assert estimated_cost(template, "medium", 1800) == (2.5, 1.25)
    assert estimated_cost(template, "large", 3600) == (9.0, None)
    assert estimated_cost(template, "existing", 3600) == (0.0, None)


def test_in_cluster_mode_driver_and_executors_get_what_they_need_by_configuration(tmp_path: Path) -> None:
    """No environment variable of the client reaches a driver that runs on another node."""
    template = load_template(write(tmp_path, step={"deploy_mode": "cluster", "spark_conf": {JAVA_OPTIONS[0]: "-Dx=1"}}))
    step = SparkStep(
        job=INGEST_DAILY,
        arguments=("--pinned-input", "s3://b/pinned.json"),
        collection=AUDIT,
        storage_day=date(2023, 3, 26),
        correlation_id="c",
        input_bytes=0,
    )
    profile = template.profile("small")
    request = step_request(
        template, profile, step, name="n", pipes=("--dagster-pipes-context", "p"), conf={}, region="eu-west-2"
    )
    arguments = request["HadoopJarStep"]["Args"]
    assert arguments[:5] == ["spark-submit", "--master", "yarn", "--deploy-mode", "cluster"]
    conf = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    pattern = "-Dlog4j2.configurationFile=file:///opt/cdi/log4j2.json"
    assert [conf[name] for name in JAVA_OPTIONS] == [f"{pattern} -Dx=1", pattern]
    python = "/opt/cdi/venv/bin/python"
    assert conf["spark.yarn.appMasterEnv.PYSPARK_PYTHON"] == conf["spark.executorEnv.PYSPARK_PYTHON"] == python
    program = arguments.index("/opt/cdi/entry_points/ingest_daily.py")
    assert not [argument for argument in arguments if "encryption" in argument]
    assert arguments[program + 1 :] == [
        "--pinned-input",
        "s3://b/pinned.json",
        "--dagster-pipes-context",
        "p",
        "--aws-region",
        "eu-west-2",
    ]


def test_driver_executors_and_s3a_encrypt_as_the_settings_choose() -> None:
    template = load_template(TESTED)
    step = SparkStep(
        job=INGEST_DAILY,
        arguments=(),
        collection=AUDIT,
        storage_day=date(2023, 3, 26),
        correlation_id="c",
        input_bytes=0,
    )
    chosen = Encryption(algorithm="aws:kms", kms_key="our-key")
    request = step_request(template, None, step, name="n", pipes=(), conf={}, region="eu-west-2", encryption=chosen)
    arguments = request["HadoopJarStep"]["Args"]
    assert arguments[-4:] == ["--s3-encryption", "aws:kms", "--s3-kms-key", "our-key"]
    conf = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    assert conf["spark.hadoop.fs.s3a.encryption.algorithm"] == "SSE-KMS"
    assert conf["spark.hadoop.fs.s3a.encryption.key"] == conf["spark.executorEnv.CDI_S3_KMS_KEY"] == "our-key"
    assert conf["spark.executorEnv.CDI_S3_ENCRYPTION"] == "aws:kms"
