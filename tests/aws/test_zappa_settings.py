"""zappa_settings.json: options that Zappa knows, functions that exist, and no secrets."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import zappa

from controlplane.lambda_entry import NEEDED
from tests.aws.function import ROOT

STAGES = ("dev", "production")
SETTINGS = json.loads((ROOT / "zappa_settings.json").read_text())


def stage(name: str) -> dict[str, Any]:
    return {**SETTINGS["base"], **SETTINGS[name]}


def known_options() -> set[str]:
    """Return the options that Zappa's command line reads, from its source: it ignores what it does not know."""
    source = (Path(zappa.__file__).parent / "cli.py").read_text()
    named = re.search(r"CUSTOM_SETTINGS = \[(.*?)\]", source, re.DOTALL)
    assert named
    read = re.findall(r'stage_config(?:\.get\(\s*|\[)"(\w+)"', source)
    return {*read, *re.findall(r'"(\w+)"', named[1]), "extends"}


def resolve(dotted: str) -> object:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("name", STAGES)
def test_zappa_knows_every_option(name: str) -> None:
    assert set(stage(name)) <= known_options()


@pytest.mark.parametrize("name", STAGES)
def test_every_function_that_is_named_exists(name: str) -> None:
    named = [stage(name)["lambda_handler"], stage(name)["prebuild_script"]]
    named += [event["function"] for event in stage(name)["events"]]
    assert all(callable(resolve(function)) for function in named)


@pytest.mark.parametrize("name", STAGES)
def test_the_settings_hold_no_secret(name: str) -> None:
    variables = {**stage(name)["environment_variables"], **stage(name)["aws_environment_variables"]}
    assert not variables.keys() & {*NEEDED, "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AZURE_OPENAI_KEY", "METRICS_TOKEN"}
    variables.pop("KMS_KEY_ID")  # a name, and no key
    assert not any(re.search(r"KEY|TOKEN|SECRET$|PASSWORD", variable) for variable in variables)


@pytest.mark.parametrize("name", STAGES)
def test_a_request_ends_before_aws_ends_the_process(name: str) -> None:
    assert float(stage(name)["environment_variables"]["REQUEST_DEADLINE_SECONDS"]) < stage(name)["timeout_seconds"]


@pytest.mark.parametrize("name", STAGES)
def test_events_are_never_logged(name: str) -> None:
    assert stage(name)["debug"] is False
    assert stage(name)["log_level"] == "INFO"
