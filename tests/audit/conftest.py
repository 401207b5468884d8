"""The planted bunch, trained once for all tests of audits."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from planted import Planted


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> "Planted":
    from planted import build

    return build(tmp_path_factory.mktemp("planted"))
