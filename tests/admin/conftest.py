from collections.abc import Iterator

import pytest
from django.conf import settings
from django.test import override_settings

from tests.admin.cast import Cast, gather

PLAIN_STATIC = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}


@pytest.fixture(autouse=True)
def static_files_as_they_are() -> Iterator[None]:
    """Pages name static files without the manifest that `collectstatic` would have written."""
    with override_settings(STORAGES=PLAIN_STATIC, STATIC_ROOT=settings.BASE_DIR / "static"):
        yield


@pytest.fixture
def cast() -> Cast:
    return gather()


@pytest.fixture(scope="module")
def onlookers() -> Cast:
    """A cast for tests that only look."""
    return gather()
