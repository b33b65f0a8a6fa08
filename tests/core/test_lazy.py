"""Names that packages import when they are first used."""

import importlib
import subprocess
import sys

import pytest

PACKAGES = (
    "streamapp",
    "streamapp.client",
    "streamapp.models",
    "streamapp.models.llm",
    "streamapp.services",
    "streamapp.testing",
)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_and_listed(package):
    module = importlib.import_module(package)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is getattr(module, name)


@pytest.mark.parametrize("package", PACKAGES)
def test_another_name_is_an_attribute_error_that_says_which(package):
    module = importlib.import_module(package)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018 - asked for only


def test_a_package_loads_none_of_its_names():
    program = "import streamapp, streamapp.services, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not {"faust", "pyarrow", "numpy", "streamapp.guest"} & set(done.stdout.split())
