from collections.abc import Iterator

import pytest
from django.test import override_settings

from tests.login.pool import CLIENT, POOL, KeyServer, key_server


@pytest.fixture(scope="module")
def pool() -> Iterator[KeyServer]:
    """The user pool of this process's settings; tokens of it are made with `tests.login.pool`."""
    with (
        key_server("first") as server,
        override_settings(COGNITO_USER_POOL_ID=POOL, COGNITO_CLIENT_ID=CLIENT, AWS_ENDPOINT_URL=server.base),
    ):
        yield server
