"""The walk through the OpenAPI document, for as long as CI has time. The long form: `torture`."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings

from apps.gateway.runtime import BACKGROUND
from tests.api.walk import Walk


@pytest.fixture(autouse=True)
def gateway() -> Iterator[None]:
    """The part of the gateway that inference under WSGI runs on."""
    yield
    BACKGROUND.stop()


TestWalk = Walk.TestCase
TestWalk.settings = settings(
    max_examples=5,
    stateful_step_count=50,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # making a failure smaller takes minutes here
)
