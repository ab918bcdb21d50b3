import pytest

from tests.api.cast import Cast, gather


@pytest.fixture
def cast() -> Cast:
    return gather()
