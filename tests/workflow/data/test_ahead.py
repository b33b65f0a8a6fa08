"""Blocks of a file are parsed beside each other, and their rows come in order."""

import threading

import pytest

from streamapp.workflow.data import ahead as module
from streamapp.workflow.data.ahead import ahead


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 20])
def test_everything_comes_once_and_in_order(count):
    found = list(ahead(iter(range(count)), lambda number: number * 2))
    assert found == [(number, number * 2) for number in range(count)]


def test_several_are_worked_on_at_once_and_no_more_are_taken_than_that():
    taken, both = [], threading.Barrier(2, timeout=30)

    def items():
        for number in range(6):
            taken.append(number)
            yield number

    def make(number):
        if number < 2:
            both.wait()  # which breaks unless the other one is worked on, too
        return number

    found = ahead(items(), make)
    assert next(found) == (0, 0)
    assert taken == [0, 1, 2]
    assert next(found) == (1, 1)
    assert taken == [0, 1, 2, 3]
    found.close()


def test_a_single_one_needs_no_thread(monkeypatch):
    monkeypatch.setattr(module, "ThreadPoolExecutor", None)
    assert list(ahead(["a"], str.upper)) == [("a", "A")]


def test_what_fails_is_told_in_its_place():
    def make(number):
        if number == 2:
            raise ValueError(number)
        return number

    found = ahead(iter(range(5)), make)
    assert [next(found), next(found)] == [(0, 0), (1, 1)]
    with pytest.raises(ValueError, match="2"):
        next(found)
