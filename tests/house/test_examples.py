"""Property tests are held to what they say, not to how fast a busy machine says it."""

from hypothesis import HealthCheck, settings


def test_no_example_has_a_deadline():
    assert settings.default.deadline is None
    assert HealthCheck.too_slow in settings.default.suppress_health_check
