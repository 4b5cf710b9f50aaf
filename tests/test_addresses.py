"""Addresses: one spelling each, and any other text is a BadAddress that says what is wrong."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages import Address, BadAddress, NetworkError, StreamName, stream_name
from pure import ADDRESSES, ANY_TEXT

LONGEST = len("[]:65535") + 253  # a host name has at most 253 characters

# Text that comes close to an address more often than any text does.
PIECES = [
    "a",
    "host",
    "127.0.0.1",
    "::1",
    "fe80::1",
    "[",
    "]",
    ":",
    "%",
    ".",
    "-",
    "0",
    "80",
    "65535",
]
NEARLY = st.lists(st.sampled_from([*PIECES, " ", "\n", "é", "٣", "\0"]), max_size=8).map("".join)
ANYTHING = ANY_TEXT | NEARLY | st.builds("{}:{}".format, ANY_TEXT, st.integers(0, 70_000))


def parsed(text: str) -> Address | BadAddress:
    """The address, or why the text is none. Any other exception fails the test."""
    try:
        return Address.parse(text)
    except BadAddress as error:
        return error


@settings(max_examples=300)
@given(ADDRESSES)
def test_an_address_is_read_as_it_was_written(address: Address) -> None:
    assert Address.parse(str(address)) == address


@settings(max_examples=600)
@given(ANYTHING)
def test_any_text_is_an_address_or_a_bad_one(text: str) -> None:
    result = parsed(text)
    if isinstance(result, BadAddress):
        assert str(result).startswith("expected ")
        assert str(result).isprintable()
        assert len(str(result)) < 200
    else:
        assert 1 <= result.port <= 65535
        assert str(result).isascii()
        assert str(result).isprintable()
        assert " " not in str(result)
        assert Address.parse(str(result)) == result


@settings(max_examples=300)
@given(ANYTHING)
def test_every_address_can_name_a_stream(text: str) -> None:
    result = parsed(text)
    if isinstance(result, Address):
        name = StreamName(result, 1)
        assert stream_name(name.key) == name


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:5000", Address("localhost", 5000)),
        ("127.0.0.1:1", Address("127.0.0.1", 1)),
        ("my_host-1.example.:65535", Address("my_host-1.example.", 65535)),
        ("[::1]:5000", Address("::1", 5000)),
        ("[0:0:0:0:0:0:0:1]:5000", Address("::1", 5000)),
        ("[2001:DB8::00A]:5000", Address("2001:db8::a", 5000)),
        ("localhost:0080", Address("localhost", 80)),
        ("[fe80::1%eth0]:5000", Address("fe80::1%eth0", 5000)),
    ],
)
def test_this_is_an_address(text: str, address: Address) -> None:
    assert Address.parse(text) == address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected host:port"),
        ("localhost", "expected host:port"),
        ("localhost:", "a port from 1 to 65535"),
        ("localhost:http", "a port from 1 to 65535"),
        ("localhost:0", "a port from 1 to 65535"),
        ("localhost:65536", "a port from 1 to 65535"),
        ("localhost:-1", "a port from 1 to 65535"),
        ("localhost:+1", "a port from 1 to 65535"),
        ("localhost:1_0", "a port from 1 to 65535"),
        ("localhost: 80", "a port from 1 to 65535"),
        ("localhost:٣", "a port from 1 to 65535"),
        ("localhost:²", "a port from 1 to 65535"),
        (":80", "a host name or an IP address"),
        ("two words:80", "a host name or an IP address"),
        ("host\n:80", "a host name or an IP address"),
        ("-host:80", "a host name or an IP address"),
        ("hôte:80", "a host name or an IP address"),
        ("::1:80", r"expected \[IPv6\]:port"),
        ("[::1:80", r"expected \[IPv6\]:port"),
        ("[127.0.0.1]:80", "an IPv6 address in the brackets"),
        ("[]:80", "an IPv6 address in the brackets"),
        ("[::g]:80", "an IPv6 address"),
        ("[1:2:3]:80", "an IPv6 address"),
    ],
)
def test_this_is_no_address(text: str, expected: str) -> None:
    with pytest.raises(BadAddress, match=expected):
        Address.parse(text)


@pytest.mark.parametrize("zeros", [0, 1, 2, 10])
@pytest.mark.parametrize("port", ["65536", "655350", "99999", "1" * 5000])
def test_no_number_of_zeros_lets_a_port_past_its_limit(zeros: int, port: str) -> None:
    with pytest.raises(BadAddress, match="port"):
        Address.parse(f"localhost:{'0' * zeros}{port}")


@pytest.mark.parametrize("scope", ["x" * 5000, "\n", " ", "]", "é", "\x1b[2J"])
def test_an_address_carries_no_text_of_anybodys_choice(scope: str) -> None:
    """As the name of a network card in a scope, which `ipaddress` takes as it comes."""
    with pytest.raises(BadAddress):
        Address.parse(f"[fe80::1%{scope}]:80")


def test_every_address_is_short() -> None:
    longest = "a." * 126 + "a"
    assert len(str(Address.parse(f"{longest}:65535"))) <= LONGEST
    with pytest.raises(BadAddress):
        Address.parse(f"a{longest}:65535")


@pytest.mark.parametrize("host", ["a..b", "a...", "a" * 64, f"b.{'a' * 64}.c"])
def test_a_name_that_cannot_be_looked_up_is_no_host(host: str) -> None:
    """Python's own look-up answers these with UnicodeError, which is no OSError."""
    with pytest.raises(UnicodeError):
        host.encode("idna")
    with pytest.raises(BadAddress):
        Address.parse(f"{host}:80")


def test_a_bad_address_is_an_error_of_the_network_and_of_a_value() -> None:
    assert issubclass(BadAddress, NetworkError)
    assert issubclass(BadAddress, ValueError)


def test_addresses_are_ordered() -> None:
    """Of two peers that dial each other at once, the lower address decides."""
    assert Address("a", 2) < Address("b", 1)
    assert Address("a", 1) < Address("a", 2)
