"""Which network addresses the gateway may connect to: its guard against server-side request forgery.

A base URL is written by an organization's admin, the connection is made from inside the platform's network. So
only public addresses are reached, unless the operator said otherwise, and over TLS.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from django.conf import settings
from yarl import URL

from apps.gateway.providers.base import Fault, UpstreamError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# IANA's special-purpose registries (RFC 6890 and what followed) written out: `ipaddress.is_global` answers
# differently from one Python release to the next.
_NOT_PUBLIC_IPV4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's metadata service on an otherwise public address
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_IPV6 = tuple(
    ipaddress.IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address

_LOOPBACK = ipaddress.IPv4Address("127.0.0.1")

# WHATWG URL, "ends in a number": such a host is an IPv4 address to some parsers, whatever it looks like.
_NUMERIC_HOST = re.compile(r"(?:^|\.)(?:[0-9]+|0[xX][0-9a-fA-F]*)\.*$")


class AddressRule(StrEnum):
    """Which addresses one request may reach."""

    ANY = "any"  # the operator's environment named the address
    PUBLIC = "public"  # public addresses and the operator's allowed networks
    ALLOWED = "allowed"  # the operator's allowed networks only: plain HTTP never leaves them


@dataclass(frozen=True, slots=True)
class Location:
    """A URL that was read: what the HTTP client connects to, and the host's address where it is a literal one."""

    url: URL
    host: str
    port: int
    literal: IPAddress | None

    def rule(self, *, trusted: bool) -> AddressRule:
        """Choose the rule for this URL's addresses."""
        if trusted:
            return AddressRule.ANY
        return AddressRule.PUBLIC if self.url.scheme == "https" else AddressRule.ALLOWED


def refused(message: str) -> UpstreamError:
    """Build the error for an address that the gateway does not connect to."""
    return UpstreamError(Fault.ADDRESS, message)


@lru_cache(maxsize=4096)
def locate(url: str) -> Location:
    """Read an http(s) URL without resolving its host.

    Raises `UpstreamError` (ADDRESS) for another scheme, credentials in the URL, or an odd spelling of an address.
    """
    try:
        parsed = URL(url)
        host, port = parsed.host, parsed.port
    except ValueError:
        raise refused("The provider's URL is not valid.") from None
    if parsed.scheme not in {"http", "https"}:
        raise refused("The provider's URL must start with https://.")
    if not host or not port:
        raise refused("The provider's URL names no host.")
    if "@" in parsed.raw_authority:
        raise refused("The provider's URL must not hold credentials.")
    return Location(parsed, host, port, _literal(host))


def _literal(host: str) -> IPAddress | None:
    name = host.rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return _LOOPBACK  # RFC 6761, section 6.3, whatever a resolver makes of it
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        if _NUMERIC_HOST.search(host):
            raise refused("The provider's URL spells its address in an unusual way.") from None
        return None


def is_public(address: IPAddress) -> bool:
    """Say whether an address belongs to the public internet."""
    address = _innermost(address)
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_IPV4)
    return address in _GLOBAL_IPV6 and not any(address in network for network in _NOT_PUBLIC_IPV6)


def _innermost(address: IPAddress) -> IPAddress:
    """Unwrap the IPv4 address that an IPv6 one leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address


def allowed_networks() -> list[IPNetwork]:
    """Return the networks that the operator allows although they are not public."""
    return [ipaddress.ip_network(network) for network in settings.PROVIDER_ALLOWED_NETWORKS]


def check_addresses(addresses: Iterable[IPAddress], rule: AddressRule, allowed_networks: Sequence[IPNetwork]) -> None:
    """Raise `UpstreamError` (ADDRESS) unless every one of ``addresses`` may be reached under ``rule``."""
    if rule is AddressRule.ANY:
        return
    for address in addresses:
        if any(_innermost(address) in network for network in allowed_networks):
            continue
        if rule is AddressRule.ALLOWED:
            raise refused("The provider's URL must start with https://.")
        if not is_public(address):
            raise refused("The provider's URL leads to an address that is not public.")


def check_entered(url: str, allowed_networks: Sequence[IPNetwork] = ()) -> None:
    """Check a base URL, which may be empty, as a person enters it. Names are not resolved: entering a URL asks nobody.

    Raises `UpstreamError` (ADDRESS) where the gateway would not connect to it, whatever a name resolves to.
    """
    if not url:
        return
    location = locate(url)
    rule = location.rule(trusted=False)
    if rule is AddressRule.ALLOWED and not allowed_networks:
        raise refused("The provider's URL must start with https://.")
    if location.literal:
        check_addresses([location.literal], rule, allowed_networks)
