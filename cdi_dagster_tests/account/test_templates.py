"""The templates of deploy/aws are valid, read like one, and hold the policies that are shipped and tested."""

import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from cdi_dagster.cli.stack_settings import setting_of
from cdi_dagster.core.metrics import HEARTBEAT, NAMESPACE
from cdi_dagster.table_definitions import read_table_definition
from cdi_dagster_tests.account.stacks import NAMES, TEMPLATES, template
from cdi_dagster_tests.aws_actions import NODES_POLICY, POLICIES
from cdi_dagster_tests.waiting import PATIENCE_SECONDS

PLACEHOLDERS = {
    "CorporateBucket": "CHANGE-ME-CORPORATE",
    "PublishedBucket": "CHANGE-ME-PUBLISHED",
    "OperationsBucket": "CHANGE-ME-OPERATIONS",
    "EmrServiceRole": "CHANGE-ME-EMR-SERVICE-ROLE",
    "EmrInstanceRole": "CHANGE-ME-INSTANCE-ROLE",
    "EmrInstanceProfile": "CHANGE-ME-INSTANCE-PROFILE",
    "AlertTopic": "CHANGE-ME-TOPIC",
    "AlertTokenSecret": "CHANGE-ME-ALERT-TOKEN",
    "KeyServiceSecret": "CHANGE-ME-CLIENT-CERTIFICATE",
    "TemplateSecrets": "CHANGE-ME-TEMPLATE-SECRETS",
    "KmsKeyArn": "arn:aws:kms:*:CHANGE-ME-ACCOUNT:key/CHANGE-ME-KEY",
    "EmrRoleArn": "arn:aws:iam::CHANGE-ME-EMR-ACCOUNT:role/CHANGE-ME-EMR-ROLE",
    "BatchRoleArn": "arn:aws:iam::CHANGE-ME-BATCH-ACCOUNT:role/CHANGE-ME-BATCH-ROLE",
    "StatusTable": "data_pipeline_metadata",
    "AWS::AccountId": "CHANGE-ME-ACCOUNT",
    "AWS::Partition": "aws",
}


def test_cfn_lint_has_nothing_to_report() -> None:
    files = [str(TEMPLATES / f"{name}.yaml") for name in NAMES]
    linted = subprocess.run(
        [str(Path(sys.executable).with_name("cfn-lint")), "--", *files],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert (linted.stdout + linted.stderr, linted.returncode) == ("", 0)


def test_a_parameter_is_the_same_in_every_template() -> None:
    by_name: dict[str, list[Any]] = {}
    for name in NAMES:
        for parameter, definition in template(name)["Parameters"].items():
            by_name.setdefault(parameter, []).append(definition)
    assert [name for name, definitions in by_name.items() if any(d != definitions[0] for d in definitions)] == []
    assert all(definition["Description"] for definitions in by_name.values() for definition in definitions)


def test_every_output_is_named_after_a_setting() -> None:
    outputs = {output: setting_of(output) for name in NAMES for output in template(name)["Outputs"]}
    assert outputs["CdiEmrOverrides"] == "CDI_EMR_OVERRIDES"
    assert [output for output, setting in outputs.items() if setting is None] == []
    assert setting_of("CdiNothing") is setting_of("AwsRegion") is None


@pytest.mark.parametrize(
    ("name", "policy"), [("emr", "emr-service-role"), ("emr", "emr-instance-profile"), ("dagster", "dagster")]
)
def test_the_policy_in_the_template_is_the_shipped_one(name: str, policy: str) -> None:
    inline = [
        entry["PolicyDocument"]
        for resource in template(name)["Resources"].values()
        for entry in resource["Properties"].get("Policies", [])
        if entry["PolicyName"] == policy
    ]
    assert [_filled_in(document) for document in inline] == [json.loads((POLICIES / f"{policy}.json").read_text())]


def _filled_in(value: Any) -> Any:
    """Return a part of a template with our placeholders for its parameters, and every condition true."""
    if isinstance(value, list):
        return [filled for each in value if (filled := _filled_in(each)) is not None]
    if not isinstance(value, dict):
        return value
    match list(value):
        case ["Fn::Sub"]:
            return re.sub(r"\$\{([^}]+)\}", lambda named: PLACEHOLDERS[named[1]], value["Fn::Sub"])
        case ["Ref"]:
            return PLACEHOLDERS[value["Ref"]]
        case ["Fn::If"]:
            return _filled_in(value["Fn::If"][1])
    return {str(key): _filled_in(each) for key, each in value.items()}


def test_nodes_may_use_the_databases_of_every_shipped_table_definition_in_glue() -> None:
    statements = json.loads((POLICIES / f"{NODES_POLICY}.json").read_text())["Statement"]
    (glue,) = (statement["Resource"] for statement in statements if statement["Sid"] == "TablesInGlue")
    definitions = [path for path in files("cdi_dagster.table_definitions").iterdir() if path.name.endswith(".json")]
    assert len(definitions) == 3
    databases = {table.database for path in definitions for table in read_table_definition(str(path)).tables}
    for kind in ("database/{}", "table/{}/*", "userDefinedFunction/{}/*"):
        wanted = {f"arn:aws:glue:*:CHANGE-ME-ACCOUNT:{kind.format(database)}" for database in databases}
        assert wanted <= set(glue)


def test_no_role_of_a_template_has_more_than_it_needs() -> None:
    wide = [
        f"{name}: {action}"
        for name in NAMES
        for resource in template(name)["Resources"].values()
        for policy in resource["Properties"].get("Policies", [])
        for statement in policy["PolicyDocument"]["Statement"]
        for action in statement.get("Action", [])
        if "*" in action
    ]
    assert wide == []


def test_there_are_never_two_daemons_and_nothing_starts_before_the_database_is_migrated() -> None:
    resources = template("dagster")["Resources"]
    for service in ("DaemonService", "CodeService"):
        deployment = resources[service]["Properties"]["DeploymentConfiguration"]
        assert (deployment["MinimumHealthyPercent"], deployment["MaximumPercent"]) == (0, 100)
        assert resources[service]["Properties"]["DesiredCount"] == 1
    migrate, daemon = resources["DaemonTask"]["Properties"]["ContainerDefinitions"]
    assert migrate["Command"] == ["dagster", "instance", "migrate"]
    assert daemon["DependsOn"] == [{"ContainerName": migrate["Name"], "Condition": "SUCCESS"}]
    assert resources["CodeService"]["DependsOn"] == "DaemonService"
    assert "CodeService" in resources["WebService"]["DependsOn"]


def test_the_alarm_counts_the_heartbeat_that_the_sensor_puts() -> None:
    alarm = template("watch")["Resources"]["NoHeartbeat"]["Properties"]
    assert (alarm["Namespace"], alarm["MetricName"], alarm["TreatMissingData"]) == (NAMESPACE, HEARTBEAT, "breaching")
    assert alarm["Dimensions"] == [{"Name": "Environment", "Value": {"Ref": "Installation"}}]
    assert template("data")["Outputs"]["CdiEnvironment"]["Value"] == {"Ref": "Installation"}


def test_operators_and_readers_are_signed_in_and_readers_can_start_nothing() -> None:
    resources = template("dagster")["Resources"]
    for rule in ("OperatorsSignIn", "ReadersSignIn"):
        kinds = [action["Type"] for action in resources[rule]["Properties"]["Actions"]]
        assert kinds == ["authenticate-oidc", "forward"]
    assert resources["Listener"]["Properties"]["DefaultActions"][0]["Type"] == "fixed-response"
    by_target = {each["TargetGroupArn"]["Ref"]: each for each in resources["WebService"]["Properties"]["LoadBalancers"]}
    containers = {each["Name"]: each for each in resources["WebTask"]["Properties"]["ContainerDefinitions"]}
    assert "--read-only" in containers[by_target["Readers"]["ContainerName"]]["Command"]
    assert "--read-only" not in containers[by_target["Operators"]["ContainerName"]]["Command"]
