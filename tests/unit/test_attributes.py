"""The registry of attributes beside the semantic conventions, and which of them are written."""

import importlib
import inspect
import pkgutil
import re
from types import ModuleType

import opentelemetry.semconv._incubating.attributes
import opentelemetry.semconv.attributes
import pytest

from otel_sysexit.attributes import ATTRIBUTES, Attribute, AttributeSelection, parse_switches

TYPES = {"string", "int", "double", "boolean", "string[]", "int or string"}
LEVELS = {"required", "recommended", "opt_in"}
OURS = [one for one in ATTRIBUTES if not one.is_convention]
# That a name is deprecated stands in the docstring behind its constant.
DEPRECATED = re.compile(r'^([A-Z0-9_]+): Final = "[^"]+"\n"""\nDeprecated', re.MULTILINE)

each_attribute = pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda one: f"{one.level} {one.name}")


def modules() -> list[ModuleType]:
    """Return the modules of the semantic conventions' package that define names of attributes."""
    packages = (opentelemetry.semconv.attributes, opentelemetry.semconv._incubating.attributes)
    return [
        importlib.import_module(f"{package.__name__}.{found.name}")
        for package in packages
        for found in pkgutil.iter_modules(package.__path__)
    ]


@pytest.fixture(scope="module")
def conventions() -> dict[str, bool]:
    """The names that the semantic conventions define, and whether they are deprecated."""
    found = {}
    for module in modules():
        deprecated = set(DEPRECATED.findall(inspect.getsource(module)))
        for constant, name in vars(module).items():
            if constant.isupper() and isinstance(name, str):
                # The incubating modules deprecate what has become stable, in favour of the same name there.
                found[name] = found.get(name, True) and constant in deprecated
    return found


def test_the_package_tells_what_is_deprecated(conventions):
    """What this file reads of the package is there: names in use, and names that are not to be used any more."""
    assert conventions["process.pid"] is False
    assert conventions["net.peer.name"] is True


@each_attribute
def test_a_name_is_the_conventions_or_ours(conventions, attribute: Attribute):
    """A standard name is one, and in use; a name of ours is none."""
    assert conventions.get(attribute.name) is (False if attribute.is_convention else None)


@each_attribute
def test_an_attribute_is_declared_in_full(attribute: Attribute):
    """Each has a type, a requirement level, a meaning and an example."""
    assert attribute.type in TYPES
    assert attribute.requirement in LEVELS
    assert attribute.note.endswith((".", ".)"))
    assert attribute.example


@pytest.mark.parametrize("attribute", OURS, ids=lambda one: one.name)
def test_quantities_of_ours_have_units(attribute: Attribute):
    """What is a double is a quantity."""
    assert attribute.unit or attribute.type != "double"


def test_opt_in_attributes_are_off_until_asked_for():
    """A command line may hold secrets, a cgroup's path has many values."""
    assert not AttributeSelection().has("process.command_args")
    assert not AttributeSelection().has("process.linux.cgroup")
    assert AttributeSelection((("process.linux.cgroup", True),)).has("process.linux.cgroup")


def test_all_others_are_on_until_switched_off():
    """By name or by pattern; what a process says of itself, too."""
    selection = AttributeSelection((("process.owner", False), ("deployment.*", False)))

    assert not selection.has("process.owner")
    assert not selection.has("deployment.environment.name")
    assert selection.has("process.pid")


def test_the_last_switch_counts():
    """All of a group but one."""
    selection = AttributeSelection((("host.*", False), ("host.name", True)))

    assert (selection.has("host.name"), selection.has("host.id")) == (True, False)


def test_what_is_required_is_always_there():
    """A span without the call's name would be none of ours."""
    selection = AttributeSelection((("*", False),))

    assert selection.has("service.name")
    assert selection.has("syscall.name")
    assert not selection.has("syscall.number")


@pytest.mark.parametrize(
    "text", ["syscall.argument.flags=off", "otel_sysexit.window.call_count.read=off", "host.*=Off", "a.*=on"]
)
def test_families_and_patterns_can_be_switched(text):
    """One argument of all calls, one call's count, and patterns for what others define."""
    assert [name for name, _ in parse_switches(text)] == [text.partition("=")[0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("process.owner", "'process.owner' is not NAME=on or NAME=off"),
        ("process.owner=no", "'process.owner=no' is not NAME=on or NAME=off"),
        ("=off", "'=off' is not NAME=on or NAME=off"),
        ("process.ovner=off", "there is no attribute 'process.ovner'; for those of others write a pattern"),
        ("syscall.argument.=off", "there is no attribute 'syscall.argument.'"),
        ("service.name=off", "service.name is always there"),
        ("host.*=off,", "'' is not NAME=on"),
    ],
)
def test_a_wrong_switch_is_told(text, message):
    """A typing error is no silent nothing."""
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_switches(text)
