"""A function of somebody else's, to which some names of its module mean something else."""

from collections.abc import Callable
from types import FunctionType
from typing import Any


def rebound(function: Callable[..., Any], **names: Any) -> Any:
    """A copy of the function; its module and everybody else's function stay as they are.

    Raises:
        TypeError: it is no function in Python.
        ValueError: it does not know such a name.
    """
    if not isinstance(function, FunctionType):
        raise TypeError(f"{function!r} is no function in Python")
    unknown = names.keys() - function.__code__.co_names
    if unknown:
        raise ValueError(f"{function!r} knows no {', '.join(sorted(unknown))}")
    copy = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
