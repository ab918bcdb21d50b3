"""A cold start: secrets first, then Django, and no half-made process that serves."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.aws.conftest import StartFunction, bare_environment, full_environment
from tests.aws.events import http_api
from tests.aws.function import FunctionError, LambdaFunction

HEALTH = http_api("GET", "/health")
NEEDED = ("DATABASE_URL", "SECRET_KEY", "KEY_PEPPERS", "ENCRYPTION_KEYS")
PASSWORD = "p@ss:w/rd?#% +$ü"
DATABASE = {"engine": "postgres", "host": "aurora.example.com", "port": 6432, "username": "o'app", "dbname": "control"}
SHOW_SETTINGS = """
import json
from controlplane.lambda_entry import ControlPlaneHandler
ControlPlaneHandler()
from django.conf import settings
database = settings.DATABASES["default"]
shown = {name.lower(): database[name] for name in ("HOST", "PORT", "USER", "PASSWORD", "NAME")}
print(json.dumps({**shown, "openai": settings.OPENAI_API_KEY, "metrics": settings.METRICS_TOKEN}))
"""
COUNT_THREADS = """
import threading
from controlplane.lambda_entry import lambda_handler
counts = [threading.active_count()]
lambda_handler(json.loads(sys.argv[1]), None)
print(json.dumps([*counts, threading.active_count()]))
"""


def run(code: str, package: Path, environment: dict[str, str | None], *arguments: str) -> object:
    """Run Python as the function would; return the JSON of its last line."""
    process = LambdaFunction(package, environment)
    done = subprocess.run(
        [sys.executable, "-c", f"import json, sys\n{code}", *arguments],
        env=process.environment,
        cwd=package,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def failure(function: LambdaFunction) -> str:
    with pytest.raises(FunctionError) as failed:
        function.invoke(HEALTH)
    return str(failed.value)


def test_the_secrets_become_settings(package: Path, aws: str, store_secret: Callable[..., str]) -> None:
    environment = {
        **full_environment("postgres://unused"),
        "DATABASE_URL": None,
        "OPENAI_API_KEY": None,
        "METRICS_TOKEN": "set already",
        "AWS_ENDPOINT_URL": aws,
        "AURORA_SECRET_ARN": store_secret(json.dumps({**DATABASE, "password": PASSWORD})),
        "PROVIDER_SECRETS_ARN": store_secret(json.dumps({"OPENAI_API_KEY": "from AWS", "METRICS_TOKEN": "from AWS"})),
    }
    assert run(SHOW_SETTINGS, package, environment) == {
        "host": "aurora.example.com",
        "port": 6432,
        "user": "o'app",
        "password": PASSWORD,
        "name": "control",
        "openai": "from AWS",
        "metrics": "set already",
    }


def test_a_start_that_failed_is_tried_again_by_the_next_event(
    start: StartFunction, aws: str, store_secret: Callable[..., str], shared_database_url: str
) -> None:
    secrets = {name: value for name, value in full_environment(shared_database_url).items() if name in NEEDED}
    arn = store_secret("{}")
    function = start({**bare_environment(), "AWS_ENDPOINT_URL": aws, "PROVIDER_SECRETS_ARN": arn})
    assert "KEY_PEPPERS" in failure(function)
    store_secret(json.dumps(secrets), arn)
    assert function.invoke(HEALTH)["statusCode"] == 200


def test_a_function_makes_no_secrets_of_its_own(start: StartFunction) -> None:
    assert f"AWS Lambda needs {', '.join(NEEDED)} or KMS_KEY_ID, from" in failure(start(bare_environment()))


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("AURORA_SECRET_ARN", "hunter2"),
        ("AURORA_SECRET_ARN", '{"username": "hunter2", "password": "hunter2"}'),
        ("PROVIDER_SECRETS_ARN", '["hunter2"]'),
        ("PROVIDER_SECRETS_ARN", '{"hunter2": "hunter2"}'),
        ("PROVIDER_SECRETS_ARN", '{"OPENAI_API_KEY": ["hunter2"]}'),
    ],
)
def test_a_useless_secret_is_named_by_its_variable_and_never_shown(
    start: StartFunction, aws: str, store_secret: Callable[..., str], variable: str, text: str
) -> None:
    function = start({**bare_environment(), "AWS_ENDPOINT_URL": aws, variable: store_secret(text)})
    assert f"ImproperlyConfigured: {variable}: the secret " in failure(function)
    assert "hunter2" not in failure(function) + function.log.read_text()


def test_a_secret_that_does_not_exist_is_named_by_its_variable(start: StartFunction, aws: str) -> None:
    arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:none-abcdef"
    function = start({**bare_environment(), "AWS_ENDPOINT_URL": aws, "AURORA_SECRET_ARN": arn})
    assert "AURORA_SECRET_ARN: the secret cannot be read (ResourceNotFoundException)." in failure(function)


def test_production_does_not_start_without_its_hosts(start: StartFunction, production_package: Path) -> None:
    environment = {**full_environment("postgres://unused/unused"), "ALLOWED_HOSTS": ""}
    function = start(environment, production_package)
    assert "Production needs ALLOWED_HOSTS" in failure(function)
    assert "Production needs ALLOWED_HOSTS" in failure(function), "a start that failed must not serve afterwards"


def test_production_serves_with_its_secrets_alone(start: StartFunction, production_package: Path) -> None:
    function = start(full_environment("postgres://unused/unused"), production_package)
    assert function.invoke(HEALTH)["statusCode"] == 200


def test_zappa_s_own_handler_cannot_be_made_first(start: StartFunction) -> None:
    environment = {**full_environment("postgres://unused/unused"), "INSTANTIATE_LAMBDA_HANDLER_ON_IMPORT": "1"}
    assert "INSTANTIATE_LAMBDA_HANDLER_ON_IMPORT" in failure(start(environment))


def test_nothing_runs_in_the_background_before_it_is_needed(package: Path) -> None:
    environment = full_environment("postgres://unused/unused")
    assert run(COUNT_THREADS, package, environment, json.dumps(HEALTH)) == [1, 1]
