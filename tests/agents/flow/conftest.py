import pytest
from demo_operations import demo  # noqa: F401  # a fixture


@pytest.fixture(autouse=True)
def _demo(demo):  # noqa: F811
    return demo
