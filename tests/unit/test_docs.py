"""The pages that are made from the code are what the code makes, and the code says what the pages say."""

import ast
import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from opentelemetry.semconv.schemas import Schemas

import otel_sysexit
from otel_sysexit import attributes
from otel_sysexit.attributes import ATTRIBUTES, EVENTS
from otel_sysexit.config import resolve
from otel_sysexit.selections import Durations
from otel_sysexit.settings import SETTINGS

PACKAGE = Path(otel_sysexit.__file__).parent
DOCS = PACKAGE.parent / "docs"
PROSE = [PACKAGE.parent / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
# What an attribute's name begins with, in the conventions and in ours.
AREAS = r"(process|thread|syscall|host|os|service|telemetry|file|error|network|container|k8s|otel_sysexit)"
OTHER_OPTIONS = {"--help", "--version", "--env-file"}


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """docs/generate.py as a module."""
    specification = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["attributes.md", "environment.md"])
def test_a_page_is_what_the_code_makes(generate, name):
    """`make docs` would change nothing."""
    assert (DOCS / name).read_text(encoding="utf-8") == generate.PAGES[name]()


def test_every_attribute_stands_on_the_page(generate):
    """No attribute has a level that the page leaves out."""
    page = generate.attributes_page()

    assert [one.name for one in ATTRIBUTES if page.count(f"| `{one.name}` |") != 1] == []


def test_every_event_stands_on_the_page(generate):
    """Each kind of log record has its row."""
    page = generate.attributes_page()

    assert [one.name for one in EVENTS if page.count(f"| `{one.name}` |") != 1] == []


def test_every_setting_stands_on_the_page(generate):
    """Each option, each variable of ours and each of OpenTelemetry's is there."""
    page = generate.environment_page()
    names = [name for one in SETTINGS for name in (one.flag, one.variable, *one.otel)]

    assert [name for name in names if f"{name}`" not in page and f"{name} " not in page] == []


def test_the_example_of_a_service_works():
    """The variables of the example are understood, all of them."""
    example = re.search(r"```sh\n(.*?)```", (DOCS / "environment.md").read_text(), re.DOTALL)[1]
    environ = dict(line.split("=", 1) for line in example.splitlines())
    found = resolve("attach", {}, environ)

    assert found.warnings == ()
    assert (found.exporter, found.endpoint) == ("otlp", "https://collector.example:4318/v1/traces")
    assert found.headers == {"authorization": "Bearer TOKEN"}
    assert (found.chosen.pids, found.min_duration, found.quiet) == ([1234], Durations(10**6), True)
    assert found.resource_attributes == {"deployment.environment.name": "production"}
    known = {variable for one in SETTINGS for variable in (one.variable, *one.otel)}
    assert set(environ) <= known | {"OTEL_RESOURCE_ATTRIBUTES"}


@pytest.mark.parametrize(
    "path",
    [*PROSE, *(DOCS / f"{name}.md" for name in ("environment", "attributes", "kubernetes"))],
    ids=lambda path: path.name,
)
def test_options_that_are_named_exist(path):
    """No page promises an option that is not there; what is written as the beginning of several (`--not-…`) is one of some."""
    options = {setting.flag for setting in SETTINGS} | OTHER_OPTIONS
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*…?", path.read_text(encoding="utf-8")))
    beginnings = {name.removesuffix("…") for name in named if name.endswith("…")}

    assert {name for name in named if not name.endswith("…")} - options == set()
    assert [one for one in beginnings if not any(option.startswith(one) for option in options)] == []


# --- Kubernetes -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kubernetes() -> list[dict]:
    """The examples of docs/kubernetes.md: a Collector's configuration and a DaemonSet."""
    text = (DOCS / "kubernetes.md").read_text(encoding="utf-8")
    return [yaml.safe_load(example) for example in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


def test_a_collector_joins_on_what_we_send(kubernetes):
    """Each rule goes by a resource attribute of ours, and by one that the processor knows since it extracts it."""
    processor = kubernetes[0]["processors"]["k8s_attributes"]
    sources = [source for rule in processor["pod_association"] for source in rule["sources"]]
    ours = {one.name for one in ATTRIBUTES if one.level == "resource"}

    assert {source["from"] for source in sources} == {"resource_attribute"}
    assert [source["name"] for source in sources] == ["k8s.pod.uid", "container.id"]
    assert {source["name"] for source in sources} <= ours & set(processor["extract"]["metadata"])
    assert "k8s_attributes" in kubernetes[0]["service"]["pipelines"]["traces"]["processors"]


def test_the_agent_of_a_node_can_start(kubernetes):
    """It has the node's pid namespace, and its command line is one."""
    pod = kubernetes[1]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    command, *options = container["args"]
    settings = {setting.flag: setting for setting in SETTINGS}

    assert pod["hostPID"]
    assert command == "attach"
    assert all(settings[option] for option in options if option.startswith("--"))
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }


# --- names of attributes ----------------------------------------------------------------------------------------------


def constants_of(module: ModuleType) -> dict[str, str]:
    """Return the module's constants that are texts."""
    return {name: value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}


@pytest.fixture(scope="module")
def conventions() -> set[str]:
    """Every attribute name in OpenTelemetry's own package of constants."""
    found = set()
    for name in ("opentelemetry.semconv.attributes", "opentelemetry.semconv._incubating.attributes"):
        package = importlib.import_module(name)
        for module in pkgutil.iter_modules(package.__path__, f"{name}."):
            found |= set(constants_of(importlib.import_module(module.name)).values())
    return found


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda attribute: attribute.name)
def test_a_conventions_name_is_the_conventions(conventions, attribute):
    """What we call a convention is one, letter for letter; what we call ours is none."""
    assert (attribute.name in conventions) == attribute.is_convention


def test_the_schema_is_a_published_one():
    """The schema URL is one of those that OpenTelemetry's package knows."""
    assert attributes.SCHEMA_URL in {schema.value for schema in Schemas}


def test_the_table_and_the_constants_agree():
    """Every name in attributes.py stands in its table once, and the table has no others."""
    names = [one.name.removesuffix("<name>") for one in ATTRIBUTES]
    constants = set(constants_of(attributes).values()) - {attributes.SCHEMA_URL}

    assert sorted(names) == sorted(constants)


def test_no_other_name_is_used():
    """Texts in the package that look like an attribute's name are names of the table."""
    names = {one.name for one in (*ATTRIBUTES, *EVENTS)}
    used = {
        node.value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.fullmatch(AREAS + r"(\.[a-z_]+)+", node.value)
    }
    modules = {f"otel_sysexit.{path.stem}" for path in PACKAGE.rglob("*.py")} | {"os.environ"}

    assert {
        name for name in used if name not in names | modules and "otel_sysexit.kernel" not in name
    } == set()
