from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.doors import Product
from tests.services.server import tracebacks


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory, database: None) -> Iterator[Product]:
    folder: Path = tmp_path_factory.mktemp("product")
    running = Product(folder)
    yield running
    running.stop()
    assert tracebacks(running.logs()) == []


@pytest.fixture(params=["asgi", "wsgi"])
def url(request: pytest.FixtureRequest, product: Product, postgres_only: None) -> str:
    return product.url(request.param)
