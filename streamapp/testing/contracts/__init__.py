"""Contract suites: pytest classes to inherit; what passes one keeps the contract.

``stage.StageContract`` is for stages, ``log.LogContract`` for logs.  Import them from their own
modules, whose assertions explain themselves under pytest.
"""
