"""The planted bunch, trained once for all tests of audits."""

from typing import TYPE_CHECKING

import pytest

from once import once

if TYPE_CHECKING:
    from planted import Planted


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> "Planted":
    from planted import build

    return once(tmp_path_factory, "planted", build)
