"""What every test stands on: a real database with real commits, and no clean-up in between.

Tests never share rows: each makes its own organization with a name of its own and looks only at that. So there is no
transaction around a test (the journal commits on a thread of its own) and no flush (the audit's tables refuse it).
"""

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, connections
from django.test.utils import setup_databases, teardown_databases
from hypothesis import settings as hypothesis_settings

from tests.services.database_roles import grant_roles, serve_as_the_server
from tests.services.openid_provider import OpenIdProvider
from tests.services.server import keep_tables

hypothesis_settings.register_profile("untimed", deadline=None)  # how long an example takes says nothing here
hypothesis_settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def database(
    django_test_environment: None, django_db_blocker: Any, django_db_modify_db_settings: None
) -> Iterator[None]:
    with django_db_blocker.unblock():
        created = setup_databases(verbosity=0, interactive=False, aliases={"default"}, serialized_aliases=set())
        grant_roles()
        serve_as_the_server()
        keep_tables()
        yield
        _end_the_gateway()
        connections.close_all()
        _end_other_sessions()
        teardown_databases(created, verbosity=0)


def _end_the_gateway() -> None:
    """End what inference under WSGI runs on, where a test began it: its connections are not left to the collector."""
    from apps.gateway.runtime import BACKGROUND

    BACKGROUND.stop()


def _end_other_sessions() -> None:
    """Let the database be dropped although a server that a test killed may not have said goodbye."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        connection.close()


@pytest.fixture(scope="session", autouse=True)
def quick_settings() -> None:
    """Spare each test what costs time and says nothing of the product.

    Django's test clients build the middleware anew, and WhiteNoise then looks at every static file that there is.
    """
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.WHITENOISE_USE_FINDERS = False


@pytest.fixture(scope="session")
def openid() -> Iterator[OpenIdProvider]:
    """A real OpenID provider, where Node.js is; started once in each process that asks for it."""
    provider = OpenIdProvider()
    provider.start()
    yield provider
    provider.stop()


@pytest.fixture(scope="module")
def no_runtime_is_left() -> Iterator[None]:
    """For files whose tests run the gateway behind Django's client: end what it runs on when they are done."""
    from apps.gateway.runtime import BACKGROUND

    yield
    BACKGROUND.stop()


@pytest.fixture
def postgres_only() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("needs PostgreSQL")
