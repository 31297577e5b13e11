"""The templates of deploy/aws, read and made on moto."""

import copy
import json
import os
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from cfnlint.decode import cfn_yaml

from cdi_dagster_tests.repository.files import REPOSITORY
from cdi_dagster_tests.s3_server import REGION

TEMPLATES = REPOSITORY / "deploy" / "aws"
NAMES = ("data", "emr", "dagster", "watch")
"""In the order of their creation."""


def template(name: str) -> dict[str, Any]:
    """Return a template, its functions in their long form (`Fn::Sub`)."""
    return copy.deepcopy(_parsed(name))


@cache
def _parsed(name: str) -> dict[str, Any]:
    return dict(json.loads(json.dumps(cfn_yaml.load(str(TEMPLATES / f"{name}.yaml")))))


class Account:
    """An account on moto with a network, in which the stacks of one installation are made.

    The endpoint is that of the environment (AWS_ENDPOINT_URL).
    """

    def __init__(self) -> None:
        self.installation = f"c{uuid.uuid4().hex[:8]}"
        self.parameters = {
            "Installation": self.installation,
            **{
                f"{name}Bucket": f"{self.installation}-{name.lower()}"
                for name in ("Corporate", "Published", "Operations")
            },
            "CreateCorporateBucket": "yes",
            "StatusTable": f"{self.installation}_status",
            "ImageUri": "123456789012.dkr.ecr.eu-west-2.amazonaws.com/cdi@sha256:0",
            "CertificateArn": boto3.client("acm").request_certificate(DomainName="*.example.org")["CertificateArn"],
            "HostName": "cdi.example.org",
            "ReadOnlyHostName": "cdi-read.example.org",
            **{
                f"Oidc{name}": "https://identity"
                for name in ("Issuer", "AuthorizationEndpoint", "TokenEndpoint", "UserInfoEndpoint")
            },
            **{
                name: f"{self.installation}-{name}"
                for name in ("EmrServiceRole", "EmrInstanceRole", "EmrInstanceProfile", "DagsterRole", "ExecutionRole")
            },
            **self._network(),
        }
        for secret in ("cdi/oidc-operators", "cdi/oidc-readers"):
            self._secret(secret, '{"client_id": "id", "client_secret": "secret"}')

    def make(self, name: str, **parameters: str) -> str:
        """Make one stack, and return its name."""
        taken = {
            key: value
            for key, value in {**self.parameters, **parameters}.items()
            if key in template(name)["Parameters"]
        }
        stack = f"{self.installation}-{name}"
        boto3.client("cloudformation").create_stack(
            StackName=stack,
            TemplateBody=json.dumps(_as_moto_takes_it(name)),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in taken.items()],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        return stack

    def _network(self) -> Mapping[str, str]:
        ec2 = boto3.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = ",".join(
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=f"{REGION}{zone}")["Subnet"][
                "SubnetId"
            ]
            for number, zone in enumerate("ab")
        )
        return {"VpcId": vpc, "SubnetIds": subnets, "LoadBalancerSubnetIds": subnets}

    def _secret(self, name: str, text: str) -> None:
        secrets = boto3.client("secretsmanager")
        if name not in [secret["Name"] for secret in secrets.list_secrets()["SecretList"]]:
            secrets.create_secret(Name=name, SecretString=text)


def _as_moto_takes_it(name: str) -> dict[str, Any]:
    """Return a template without the name of the code location in DNS: moto's CloudFormation has no Cloud Map."""
    made = template(name)
    if name == "dagster":
        del made["Resources"]["CodeName"], made["Resources"]["CodeService"]["Properties"]["ServiceRegistries"]
    return made


def aws_environment(endpoint: str) -> dict[str, str]:
    """Return what a process needs to work in the account."""
    keys = {name: os.environ.get(name, "testing") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    return {"AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": REGION, **keys}


def shipped(path: str) -> Path:
    """Return a file below deploy/."""
    return REPOSITORY / "deploy" / path
