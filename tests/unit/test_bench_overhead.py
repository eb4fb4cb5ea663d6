"""Groups of benchmarks are chosen by name."""

import argparse
import importlib.util

import overhead
import pytest


def test_groups_are_chosen_by_name():
    """Nothing chosen: all of them."""
    assert overhead._groups("") == list(overhead.GROUPS)
    assert overhead._groups("scale,kernel") == ["scale", "kernel"]


def test_a_group_that_does_not_exist_is_a_mistake():
    """The message says which there are."""
    with pytest.raises(argparse.ArgumentTypeError, match="no group speed: kernel, "):
        overhead._groups("kernel,speed")


@pytest.mark.parametrize("group", overhead.GROUPS)
def test_every_group_has_a_module(group):
    """They are imported when they are measured: a mistake would be seen late."""
    spec = importlib.util.find_spec(f"groups.{group}")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert callable(module.measure)
