import pytest


@pytest.fixture(params=["c", "twin"])
def engine(request):
    return request.param
