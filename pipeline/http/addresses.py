"""Which addresses may be requested: well-formed ones, of public hosts, and of hosts that the parameters name."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

HOST = re.compile(rb"[A-Za-z0-9._:-]{1,255}")  # a name as DNS has it, or a number
HIGHEST_PORT = 65535
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # all that IANA gives out; what lies outside is of special use
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # NAT64: an IPv4 address in the last 32 bits
_ISATAP = (0x00005EFE, 0x02005EFE)  # bits 32 to 63 from the end, before an IPv4 address (RFC 5214)


class PrivateAddress(Exception):
    """A host has an address inside a private network or of this machine."""


def is_public(address: str) -> bool:
    """Return whether a numeric address is public, and not loopback, private, link-local, multicast or reserved."""
    ip = ipaddress.ip_address(address.split("%")[0])  # without an interface name
    if isinstance(ip, ipaddress.IPv6Address):
        if (inner := _unwrap(ip)) is not None:
            return is_public(str(inner))
        if ip not in _GLOBAL_UNICAST:
            return False
    return ip.is_global and not ip.is_multicast


def _unwrap(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that packets to `ip` may end at."""
    if ip in _TRANSLATED or (int(ip) >> 32) & 0xFFFFFFFF in _ISATAP:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)


def is_valid(url: httpx.URL) -> bool:
    """Return whether an http(s) address can be requested: its host is a name or a number, its port is one."""
    if HOST.fullmatch(url.raw_host) is None or not all(map(_is_label, url.raw_host.lower().split(b"."))):
        return False
    return url.port is None or 0 < url.port <= HIGHEST_PORT


def _is_label(label: bytes) -> bool:
    try:
        return not label.startswith(b"xn--") or label[4:].decode("punycode").isprintable()
    except UnicodeError:
        return False


def host_of(url: httpx.URL) -> str:
    try:
        return url.host
    except UnicodeError:  # a name that IDNA refuses, such as emoji
        return url.raw_host.decode("ascii")


def resolve(name: str, port: int) -> list[str]:
    """Return the numeric addresses of a host; OSError if there are none, PrivateAddress if one is not public."""
    try:
        infos = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError(f"no name of a host: {name}") from None
    addresses = [str(info[4][0]) for info in infos]
    if not all(map(is_public, addresses)):
        raise PrivateAddress(name)
    return addresses
