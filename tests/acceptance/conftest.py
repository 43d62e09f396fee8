"""One service for all tests of clients: starting it takes longer than they do."""

from collections.abc import Iterator

import pytest

from tests.service import Service, serving


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service")) as running:
        yield running
