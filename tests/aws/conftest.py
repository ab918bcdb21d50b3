"""The function's package, its database, and AWS's services on this machine."""

import base64
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import boto3
import pytest
from django.conf import settings
from django.db import connection
from moto.server import ThreadedMotoServer

from apps.orgs import keys
from apps.orgs.models import Application, Organization
from apps.policies.models import Policy, Price
from tests.aws.function import LambdaFunction, save_stage
from tests.services.database_roles import addresses
from tests.services.postgres import create_database, with_name

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "eu-central-1"}
StartFunction = Callable[..., LambdaFunction]


def key_ring(ring: dict[str, bytes]) -> str:
    return ",".join(f"{name}:{base64.b64encode(key).decode()}" for name, key in ring.items())


def bare_environment() -> dict[str, str | None]:
    """What a function's configuration holds without secrets, and nothing of this process's own."""
    unset = ("DATABASE_URL", "SECRET_KEY", "KEY_PEPPERS", "ENCRYPTION_KEYS", "DJANGO_SETTINGS_MODULE", "ENVIRONMENT")
    return {**dict.fromkeys(unset), **CREDENTIALS, "ALLOWED_HOSTS": ".amazonaws.com"}


def full_environment(database_url: str) -> dict[str, str | None]:
    """The same with this process's keys, so that the function can read what tests wrote."""
    return {
        **bare_environment(),
        **addresses(database_url),
        "SECRET_KEY": settings.SECRET_KEY,
        "KEY_PEPPERS": key_ring(settings.KEY_PEPPERS),
        # A key of the operator's first: production refuses to wrap by one that a developer's machine made.
        "ENCRYPTION_KEYS": key_ring({"operator": bytes(range(32)), **settings.ENCRYPTION_KEYS}),
    }


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stage("dev", tmp_path_factory.mktemp("dev"))


@pytest.fixture(scope="session")
def production_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stage("production", tmp_path_factory.mktemp("production"))


@pytest.fixture
def start(package: Path) -> Iterator[StartFunction]:
    """Make instances of the function that end with the test."""
    started: list[LambdaFunction] = []

    def make(environment: dict[str, str | None], folder: Path = package) -> LambdaFunction:
        started.append(LambdaFunction(folder, environment))
        return started[-1]

    yield make
    for function in started:
        function.stop()


@pytest.fixture(scope="module")
def function(package: Path, database: None, shared_database_url: str) -> Iterator[LambdaFunction]:
    """An instance that is warm from the first test on, on the database of this process's models."""
    instance = LambdaFunction(package, full_environment(shared_database_url))
    yield instance
    instance.stop()


@pytest.fixture(scope="session")
def shared_database_url(database: None) -> str:
    if connection.vendor != "postgresql":
        pytest.skip("needs PostgreSQL")
    return with_name(os.environ["DATABASE_URL"], connection.settings_dict["NAME"])


@pytest.fixture
def empty_database_url(postgres_only: None) -> str:
    return create_database(os.environ["DATABASE_URL"], f"lambda_{uuid4().hex}")


@pytest.fixture(scope="session")
def aws() -> Iterator[str]:
    """The URL of a server that speaks AWS's protocols."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def store_secret(aws: str) -> Callable[..., str]:
    """Store a text in Secrets Manager, as a new secret or under the ARN of one; return its ARN."""
    client = boto3.client(
        "secretsmanager",
        endpoint_url=aws,
        region_name="eu-central-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )

    def store(text: str, arn: str = "") -> str:
        if arn:
            client.put_secret_value(SecretId=arn, SecretString=text)
        return arn or str(client.create_secret(Name=uuid4().hex, SecretString=text)["ARN"])

    return store


class Tenant:
    """An organization that may call every simulated model, with an application and its key."""

    def __init__(self) -> None:
        self.organization = Organization.objects.create(name=f"tenant {uuid4()}")
        self.application = Application.objects.create(organization=self.organization, name="app")
        self.key = keys.issue(organization=self.organization, application=self.application, name="key").text
        self.add_policy("model_restriction", {"allow": ["sim-*"]})
        price = {"provider": "simulated", "model": "sim-*", "input_nano_usd": 10**9, "output_nano_usd": 2 * 10**9}
        if not Price.objects.filter(**price).exists():
            Price.objects.create(**price)

    def add_policy(self, kind: str, config: dict[str, object]) -> None:
        policy = Policy(organization=self.organization, name=kind, kind=kind, config=config)
        policy.full_clean()
        policy.save()


@pytest.fixture
def tenant() -> Tenant:
    return Tenant()
