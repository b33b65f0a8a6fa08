import asyncio

import pytest

from streamapp.agents import outcome


@pytest.fixture(params=["c", "twin"])
def engine(request):
    return request.param


@pytest.fixture
def ended(monkeypatch):
    """Errors that would have ended the process; each raises where the test sees it."""
    errors = []

    def stop(error):
        errors.append(error)
        raise asyncio.CancelledError

    monkeypatch.setattr(outcome, "stop_process", stop)
    return errors
