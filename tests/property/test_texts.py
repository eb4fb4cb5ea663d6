"""Texts and addresses as columns: what a record holds, made valid UTF-8, and struct sockaddr as the library reads it."""

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_sysexit.addresses import SOCKADDR_BYTES_MAX, Addresses, Family, decode_address, make_addresses
from otel_sysexit.kernel import records
from otel_sysexit.kernel.records import StringRole
from otel_sysexit.texts import Texts, clean_text, kept_lengths, make_texts, pack_texts

LIMIT = 128
RECORD = records.string_dtype(LIMIT)


def string_records(*raws: bytes, lengths: list[int] | None = None) -> np.ndarray:
    """Return STRING records as the kernel side writes them: one byte more than is kept is read, the length says what there was."""
    made = np.zeros(len(raws), RECORD)
    for at, raw in enumerate(raws):
        kept = raw[: LIMIT + 1]
        made["length"][at] = len(kept) if lengths is None else lengths[at]
        made["text"][at, : len(kept)] = np.frombuffer(kept, np.uint8)
    return made


def text_at(texts: Texts, row: int) -> bytes:
    """Return a text."""
    return texts.text[row, : texts.length[row]].tobytes()


# --- texts ------------------------------------------------------------------------------------------------------------

raw_texts = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40).map(str.encode),
    st.builds(lambda count, end: b"/" * (LIMIT - count) + end, st.integers(0, 6), st.binary(max_size=7)),
).map(lambda raw: raw.replace(b"\0", b"x"))


@given(st.lists(raw_texts, max_size=6))
def test_each_text_is_made_by_itself(raws):
    """In a batch each text is what it is alone: valid UTF-8, its beginning where it is too long, and whether it was cut."""
    texts = make_texts(string_records(*raws), LIMIT)

    assert len(texts) == len(raws)
    for row, raw in enumerate(raws):
        expected, is_cut = clean_text(raw[:LIMIT], LIMIT)
        assert text_at(texts, row) == expected
        assert texts.is_cut[row] == (is_cut or len(raw) > LIMIT)
        assert not texts.text[row, len(expected) :].any()


@given(st.binary(max_size=60), st.integers(4, 60))
def test_a_clean_text_is_the_beginning_of_what_was_there(raw, limit):
    r"""Bytes that are no UTF-8 are written as \xNN; a text that has no room for all ends with a whole character."""
    text, is_cut = clean_text(raw, limit)
    whole = raw.decode(errors="backslashreplace").encode()

    assert len(text) <= limit
    assert whole.startswith(text)
    assert is_cut == (text != whole)
    assert len(text) > limit - 4 or not is_cut
    text.decode()


@given(st.lists(st.tuples(raw_texts, st.booleans()), max_size=6))
def test_a_text_that_was_cut_early_ends_where_it_ends(made):
    """What is marked as cut has no more bytes than are there, fewer than are kept or not."""
    raws = [raw[:LIMIT] for raw, _ in made]
    lengths = [LIMIT + 1 if is_cut else len(raw) for raw, (_, is_cut) in zip(raws, made, strict=True)]
    found = kept_lengths(string_records(*raws, lengths=lengths), LIMIT)

    assert found.tolist() == [len(raw) for raw in raws]


@given(st.lists(st.text(max_size=20).map(str.encode), max_size=6))
def test_packed_texts_are_what_was_packed(given_texts):
    """Texts that are valid already are columns without a change, none cut."""
    texts = pack_texts(given_texts)

    assert [text_at(texts, row) for row in range(len(texts))] == given_texts
    assert texts.text.shape == (len(given_texts), max(map(len, given_texts), default=0))
    assert not texts.is_cut.any()


# --- addresses --------------------------------------------------------------------------------------------------------

PORTS = st.integers(0, 2**16 - 1)


def family_bytes(family: int) -> bytes:
    """Return sa_family as this machine has it."""
    return struct.pack("=H", family)


def text_and_port(addresses: Addresses, row: int) -> tuple[Family, bytes, int]:
    """Return an address from its columns."""
    return Family(addresses.family[row]), text_at(addresses.texts, row), int(addresses.port[row])


@given(st.ip_addresses(v=4), PORTS, st.binary(max_size=8))
def test_an_ipv4_address_is_read(address, port, padding):
    """Port and address are in network order; what follows is nothing."""
    raw = family_bytes(socket.AF_INET) + struct.pack(">H", port) + address.packed + padding

    assert decode_address(raw) == (Family.IPV4, str(address).encode(), port)
    assert IPv4Address(decode_address(raw)[1].decode()) == address


@given(st.ip_addresses(v=6), PORTS, st.binary(min_size=4, max_size=4), st.binary(max_size=4))
def test_an_ipv6_address_is_read(address, port, flow, scope):
    """Between port and address is the flow label; the scope may be missing (RFC 2133)."""
    raw = family_bytes(socket.AF_INET6) + struct.pack(">H", port) + flow + address.packed + scope

    assert decode_address(raw) == (Family.IPV6, str(address).encode(), port)
    assert IPv6Address(decode_address(raw)[1].decode()) == address


@given(st.binary(min_size=1, max_size=108).map(lambda raw: raw.replace(b"\0", b"/")), st.binary(max_size=9))
def test_a_unix_sockets_path_ends_at_its_nul(path, behind):
    """What stands behind the first NUL is no part of the path."""
    raw = family_bytes(socket.AF_UNIX) + path + b"\0" + behind
    family, text, port = decode_address(raw)

    assert (family, port) == (Family.UNIX, 0)
    assert path.decode(errors="backslashreplace").encode().startswith(text)
    assert len(text) <= 255


@given(st.binary(min_size=1, max_size=107))
def test_an_abstract_name_begins_with_an_at_sign(name):
    """A name that begins with a NUL is abstract: as ss(8) and strace show it, each NUL is an @."""
    _, text, _ = decode_address(family_bytes(socket.AF_UNIX) + b"\0" + name)
    shown = b"@" + name.replace(b"\0", b"@")

    assert text.startswith(b"@")
    assert shown.decode(errors="backslashreplace").encode().startswith(text)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\2",
        family_bytes(socket.AF_UNSPEC) + bytes(14),
        family_bytes(socket.AF_NETLINK) + bytes(10),
        family_bytes(socket.AF_INET) + bytes(5),
        family_bytes(socket.AF_INET6) + bytes(21),
        family_bytes(socket.AF_UNIX),
        family_bytes(socket.AF_UNIX) + b"\0",
    ],
)
def test_what_is_no_address_is_none(raw):
    """Cut short, without a name, or of another family: nothing is made up."""
    assert decode_address(raw) == (Family.NONE, b"", 0)


SOCKADDRS = st.one_of(
    st.builds(
        lambda family, rest: family_bytes(family) + rest,
        st.sampled_from([socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK]),
        st.sampled_from([b"\0\x50\x7f\0\0\1", b"\0\x50" + bytes(19) + b"\1", b"/run/s\0", b"\0x", b""]),
    ),
    st.binary(max_size=SOCKADDR_BYTES_MAX),
)


@given(st.lists(SOCKADDRS, max_size=8))
def test_each_address_is_there_once(raws):
    """Whatever bytes programs hand over, each call finds its address, and equal ones share a row."""
    made = string_records(*raws)
    made["role"] = StringRole.ADDRESS
    row, addresses = make_addresses(made)
    expected = [decode_address(raw) for raw in raws]

    assert len(row) == len(raws)
    assert len(addresses.family) == len(set(expected) - {(Family.NONE, b"", 0)})
    for found, address in zip(row.tolist(), expected, strict=True):
        if address[0] == Family.NONE:
            assert found == -1
        else:
            assert text_and_port(addresses, found) == address


def test_an_address_that_could_not_be_read_is_none():
    """A negative length is an errno."""
    row, addresses = make_addresses(string_records(family_bytes(socket.AF_UNIX) + b"/x", lengths=[-14]))

    assert (row.tolist(), len(addresses.family)) == ([-1], 0)
