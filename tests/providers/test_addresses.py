import asyncio
from ipaddress import ip_address, ip_network

import pytest

from apps.gateway.addresses import AddressRule, check_addresses, check_entered, is_public, locate
from apps.gateway.providers.base import Fault, UpstreamError
from apps.gateway.transport import Transport
from tests.mock_upstream import MockUpstream
from tests.providers.calling import chat, post, read, run

LOOPBACK_ONLY = [ip_network("127.0.0.0/8")]
NOT_PUBLIC = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.168.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_known_as_such(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_a_public_address_is_known_as_such(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/v1",
        "https://[::1]/v1",
        "https://[::ffff:127.0.0.1]/v1",
        "https://[fe80::1%25eth0]/v1",
        "https://localhost/v1",
        "https://localhost./v1",
        "https://LOCALHOST/v1",
        "https://api.localhost/v1",
        "https://2130706433/v1",
        "https://0x7f000001/v1",
        "https://0x7f.1/v1",
        "https://0177.0.0.1/v1",
        "https://127.1/v1",
        "https://127.0.0.1./v1",
        "https://①②⑦.0.0.1/v1",
        "https://169.254.169.254/latest/meta-data",
        "http://8.8.8.8/v1",
        "ftp://8.8.8.8/v1",
        "file:///etc/passwd",
        "gopher://8.8.8.8/",
        "https://user:password@8.8.8.8/v1",
        "https:///v1",
        "https://8.8.8.8:99999/v1",
        "//8.8.8.8/v1",
        "8.8.8.8",
    ],
)
def test_an_address_that_must_not_be_reached_is_refused_when_entered_and_when_called(url: str) -> None:
    with pytest.raises(UpstreamError) as entered:
        check_entered(url)
    with pytest.raises(UpstreamError) as called:
        run(lambda transport: transport.send(post(url)), allowed_networks=())
    assert entered.value.fault is called.value.fault is Fault.ADDRESS


def test_a_public_https_address_may_be_entered() -> None:
    check_entered("https://8.8.8.8/v1")


def test_a_network_that_the_operator_allows_may_be_entered_even_without_tls() -> None:
    check_entered("http://10.1.2.3:8000/v1", [ip_network("10.0.0.0/8")])
    check_entered("http://[::ffff:10.1.2.3]/v1", [ip_network("10.0.0.0/8")])


def test_one_forbidden_address_among_public_ones_refuses_the_host() -> None:
    addresses = [ip_address("8.8.8.8"), ip_address("10.0.0.1")]
    with pytest.raises(UpstreamError):
        check_addresses(addresses, AddressRule.PUBLIC, ())


def test_plain_http_to_a_public_address_is_refused() -> None:
    with pytest.raises(UpstreamError):
        check_addresses([ip_address("8.8.8.8")], AddressRule.ALLOWED, LOOPBACK_ONLY)


def test_an_operators_address_is_reached_where_others_are_refused(upstream: MockUpstream) -> None:
    request = post(f"{upstream.base_url}/chat/completions", chat(), trusted=True)
    response, _ = run(lambda transport: read(transport, request), allowed_networks=())
    assert response.status == 200


def test_a_refused_host_is_never_connected_to_though_a_trusted_request_left_a_connection(
    upstream: MockUpstream,
) -> None:
    url = f"http://localhost:{upstream.port}/v1/chat/completions"

    async def calls(transport: Transport) -> None:
        await read(transport, post(url, chat(), trusted=True))
        await transport.send(post(url, chat()))

    with pytest.raises(UpstreamError) as caught:
        run(calls, allowed_networks=())
    assert caught.value.fault is Fault.ADDRESS
    assert len(upstream.calls) == 1


def test_many_requests_to_one_refused_host_at_once_are_all_refused() -> None:
    async def calls(transport: Transport) -> list[object]:
        request = post("https://localhost/v1")
        return await asyncio.gather(*(transport.send(request) for _ in range(5)), return_exceptions=True)

    outcomes = run(calls, allowed_networks=())
    assert [outcome.fault for outcome in outcomes if isinstance(outcome, UpstreamError)] == [Fault.ADDRESS] * 5


def test_a_url_is_read_as_the_client_will_read_it() -> None:
    location = locate("https://Example.COM/v1")
    assert (location.host, location.port) == ("example.com", 443)


def test_no_message_names_the_address() -> None:
    with pytest.raises(UpstreamError) as caught:
        check_entered("https://127.0.0.1/v1")
    assert "127" not in caught.value.message
