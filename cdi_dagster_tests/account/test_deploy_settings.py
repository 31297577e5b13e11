"""`cdi deploy settings` on stacks that moto made of the shipped templates: their outputs are settings."""

import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from click.testing import CliRunner, Result
from dotenv import dotenv_values

from cdi_dagster.cli.app import cdi
from cdi_dagster.cli.stack_settings import update_file
from cdi_dagster.emr.clusters.request import template_problems
from cdi_dagster.settings import load_settings
from cdi_dagster_tests.account.stacks import NAMES, Account, aws_environment, shipped, template
from cdi_dagster_tests.s3_server import s3_endpoint

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Tried to parse")]  # moto makes the stacks
BY_HAND = "CDI_DKS_URL=https://dks\nCDI_FIRST_STORAGE_DAY=2023-01-01\nCDI_EMR_BUNDLE_URI=s3://b/bundles/x\n"


@pytest.fixture(scope="module")
def account() -> Iterator[tuple[Account, list[str]]]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws_environment(s3_endpoint()).items():
            patch.setenv(name, value)
        made = Account()
        yield made, [made.make(name) for name in NAMES]


def run(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cdi, ["deploy", "settings", *arguments], env={"CDI_HOME": str(home)})


def test_the_four_stacks_make_what_the_settings_name(account: tuple[Account, list[str]], tmp_path: Path) -> None:
    made, stacks = account
    (tmp_path / "cdi.env").write_text(f"# ours\nCDI_AWS_REGION=eu-west-2\nCDI_ENVIRONMENT=old\n{BY_HAND}")
    result = run(tmp_path, *(f"--stack={stack}" for stack in stacks), "--json")
    assert (result.exit_code, json.loads(result.stdout)["to_do"]) == (0, []), result.output

    text = (tmp_path / "cdi.env").read_text()
    assert text.startswith(f"# ours\nCDI_AWS_REGION=eu-west-2\nCDI_ENVIRONMENT={made.installation}\n{BY_HAND}")
    # ECS takes what follows the first `=` as it is; dotenv must read the same.
    as_ecs = dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))
    assert as_ecs == dict(dotenv_values(tmp_path / "cdi.env"))

    settings = load_settings(home=tmp_path)
    assert (settings.deployment, settings.metrics, settings.environment) == ("emr", "cloudwatch", made.installation)
    assert settings.alert_target in [topic["TopicArn"] for topic in boto3.client("sns").list_topics()["Topics"]]
    assert boto3.client("dynamodb").describe_table(TableName=settings.status_table_name)["Table"]["KeySchema"][1] == {
        "AttributeName": "DataProduct",
        "KeyType": "RANGE",
    }
    for root in (settings.corporate_root, settings.published_root):
        boto3.client("s3").head_bucket(Bucket=root.removeprefix("s3://"))
    # The shipped cluster template is whole with them, without an edit.
    assert template_problems(shipped("emr/cluster.yaml"), overrides=settings.emr_overrides) == []
    cluster = settings.emr_overrides["cluster"]
    profile = boto3.client("iam").get_instance_profile(InstanceProfileName=cluster["JobFlowRole"])["InstanceProfile"]
    assert profile["Roles"][0]["RoleName"] == made.parameters["EmrInstanceRole"]
    assert cluster["SecurityConfiguration"] == f"{made.installation}-clusters"  # moto gives it another name
    assert cluster["Instances"]["Ec2SubnetIds"] == made.parameters["SubnetIds"].split(",")


def test_what_is_still_to_be_set_by_hand_is_named_and_a_second_time_changes_nothing(
    account: tuple[Account, list[str]], tmp_path: Path
) -> None:
    made, (data, emr, *_) = account
    first = run(tmp_path, "--stack", data, "--stack", emr)
    assert first.exit_code == 0
    assert "CDI_DEPLOYMENT=emr needs CDI_DKS_URL" in first.stdout
    assert "CDI_DEPLOYMENT=emr needs CDI_EMR_BUNDLE_URI" in first.stdout
    again = run(tmp_path, "--stack", emr, "--stack", data, "--json")
    assert json.loads(again.stdout)["changed"] == []


def test_what_cannot_be_settings_is_refused(account: tuple[Account, list[str]], tmp_path: Path) -> None:
    made, (data, *_) = account
    another, foreign, split = (f"{made.installation}-{name}" for name in ("another", "foreign", "split"))
    for stack, output, value in (
        (another, "CdiEnvironment", "other"),
        (foreign, "Vpc", "vpc-1"),
        (split, "CdiEnvironment", "a # b"),
    ):
        body = json.dumps({"Outputs": {output: {"Value": value}}, "Resources": {}})
        boto3.client("cloudformation").create_stack(StackName=stack, TemplateBody=body)
    for stacks, exit_code, message in (
        ((data, another), 2, "Two stacks differ in CDI_ENVIRONMENT"),
        ((foreign,), 2, f"The output Vpc of {foreign} is no setting of ours"),
        ((split,), 2, "is not one plain line: 'a # b'"),
        (("nothing",), 1, "The stack nothing cannot be read"),
    ):
        result = run(tmp_path, *(f"--stack={stack}" for stack in stacks))
        assert (result.exit_code, message in " ".join(result.output.split())) == (exit_code, True), result.output
    assert not (tmp_path / "cdi.env").exists()


def test_a_file_keeps_its_other_lines_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "cdi.env"
    path.write_text("A=1\nCDI_ENVIRONMENT=a\n\n# note\nCDI_ENVIRONMENT=b\nB=2")
    assert update_file(path, {"CDI_ENVIRONMENT": "c", "CDI_DEPLOYMENT": "emr"}) == [
        "CDI_ENVIRONMENT=c",
        "CDI_DEPLOYMENT=emr",
    ]
    assert path.read_text() == "A=1\nCDI_ENVIRONMENT=c\n\n# note\nB=2\nCDI_DEPLOYMENT=emr\n"


def test_moto_made_all_that_it_can(account: tuple[Account, list[str]]) -> None:
    cloudformation = boto3.client("cloudformation")
    for name, stack in zip(NAMES, account[1], strict=True):
        made = cloudformation.list_stack_resources(StackName=stack)["StackResourceSummaries"]
        kinds = {each["ResourceType"] for each in made}
        wanted = {each["Type"] for each in template(name)["Resources"].values() if "Condition" not in each}
        assert wanted - kinds <= {
            "AWS::ServiceDiscovery::PrivateDnsNamespace",
            "AWS::ServiceDiscovery::Service",
            "AWS::Scheduler::Schedule",
            "AWS::SecretsManager::Secret",  # it makes it, and does not list it
            "AWS::CloudWatch::Alarm",
        }
