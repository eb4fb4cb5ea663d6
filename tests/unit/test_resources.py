"""Resources: what a service is called, and what is left out."""

import pytest
from made_calls import make_process

from otel_sysexit.attributes import AttributeSelection
from otel_sysexit.identity import Image
from otel_sysexit.otlp.resources import ResourceRules, image_attributes
from otel_sysexit.targets import ServiceRule

POSTGRES = ServiceRule(b"/usr/lib/postgresql/*", "orders-db")


def make_image(**facts) -> Image:
    """Return a program that says nothing of itself."""
    return Image(make_process(7), "postgres", executable_path="/usr/lib/postgresql/17/bin/postgres", **facts)


@pytest.mark.parametrize(
    ("facts", "rules", "expected"),
    [
        ({}, ResourceRules(), "postgres"),
        ({}, ResourceRules(is_unknown_service=True), "unknown_service:postgres"),
        ({}, ResourceRules(service_rules=[POSTGRES]), "orders-db"),
        ({}, ResourceRules(service_rules=[POSTGRES], is_unknown_service=True), "orders-db"),
        ({}, ResourceRules(service_rules=[ServiceRule(b"*/nginx", "edge"), POSTGRES]), "orders-db"),
        ({}, ResourceRules(service_rules=[ServiceRule(b"*", "all"), POSTGRES]), "all"),
        ({"service_name": "said"}, ResourceRules(service_rules=[POSTGRES]), "said"),
        (
            {"context_attributes": {"service.name": "published"}, "service_name": "said"},
            ResourceRules(service_rules=[POSTGRES]),
            "published",
        ),
        ({}, ResourceRules({"service.name": "the agent's"}), "postgres"),
    ],
)
def test_a_service_is_called_by_the_first_who_knows(facts, rules, expected):
    """Itself, then a rule of the user's, then its executable's name; never the agent's own name."""
    assert image_attributes(make_image(**facts), rules)["service.name"] == expected


def test_what_a_process_says_of_itself_can_be_switched_off():
    """Cardinality is the user's choice, whoever brings an attribute."""
    image = make_image(environment_attributes={"deployment.id": "a", "team": "b"})
    rules = ResourceRules(attributes=AttributeSelection((("deployment.*", False), ("host.*", False))))
    found = image_attributes(image, rules)

    assert "team" in found
    assert not [name for name in found if name.startswith(("deployment.", "host."))]
