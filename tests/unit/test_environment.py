import pytest

from otel_sysexit.environment import (
    parse_boolean,
    parse_milliseconds_ns,
    parse_pairs,
    parse_resource_attributes,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("a=1", {"a": "1"}),
        ("a=1,b=2", {"a": "1", "b": "2"}),
        (" a = 1 , b = 2 ,", {"a": "1", "b": "2"}),
        (",,a=1,,", {"a": "1"}),
        ("a=", {"a": ""}),
        ("a=b=c", {"a": "b=c"}),
        ("a=x y", {"a": "x y"}),
        ("a=1%2C2%3D3%20%25", {"a": "1,2=3 %"}),
        ("a=%C3%A4,b=ä", {"a": "ä", "b": "ä"}),
        ("Authorization=Basic%20dTpw", {"Authorization": "Basic dTpw"}),
        ("a=100%", {"a": "100%"}),
        ("a=1,a=2", {"a": "2"}),
    ],
)
def test_pairs_are_split_and_decoded(text, expected):
    """Members stand between commas, blanks around them do not count, values are percent-decoded."""
    assert parse_pairs(text) == expected


@pytest.mark.parametrize(
    ("text", "member"),
    [
        ("a", "'a' is not name=value"),
        ("=1", "'=1' is not name=value"),
        ("a=1,b", "'b' is not name=value"),
        ("a b=1", "'a b=1' is not name=value"),
        ("a=1;b=2", "'a=1;b=2' is not name=value"),
        ("a=%ff", "'a=%ff' is no UTF-8"),
        ("a=\udcff", "is no UTF-8"),
        ("\udcff=a", "is no UTF-8"),
    ],
)
def test_what_is_no_pair_is_refused(text, member):
    """The first member that is not name=value in UTF-8 is named, in one line."""
    with pytest.raises(ValueError, match=member) as caught:
        parse_pairs(text)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a=1,b", "a=1,=2", "a=1,b=%ff", "a=1,b=\udcff"])
def test_one_error_discards_all_resource_attributes(text):
    """OTEL_RESOURCE_ATTRIBUTES counts as a whole or not at all."""
    assert parse_resource_attributes(text) == {}


def test_resource_attributes_are_pairs():
    """A value without errors is taken as it is."""
    assert parse_resource_attributes("service.name=shop,a=%41") == {"service.name": "shop", "a": "A"}


@pytest.mark.parametrize(
    ("text", "expected"), [("true", True), ("TRUE", True), ("false", False), ("False", False)]
)
def test_booleans_are_true_and_false(text, expected):
    """In any case of letters."""
    assert parse_boolean(text) is expected


@pytest.mark.parametrize("text", ["", "1", "yes", "on", "truee", " true"])
def test_other_booleans_are_refused(text):
    """There is no other word for them."""
    with pytest.raises(ValueError, match="neither true nor false"):
        parse_boolean(text)


@pytest.mark.parametrize(("text", "expected"), [("0", 0), ("1", 10**6), ("10000", 10**10)])
def test_timeouts_are_milliseconds(text, expected):
    """As the specification has them, whatever the Python SDK makes of them."""
    assert parse_milliseconds_ns(text) == expected


@pytest.mark.parametrize("text", ["", "10s", "1.5", "-1", "²", "1 000"])
def test_other_timeouts_are_refused(text):
    """Only digits are a number of milliseconds."""
    with pytest.raises(ValueError, match="no number of milliseconds"):
        parse_milliseconds_ns(text)
