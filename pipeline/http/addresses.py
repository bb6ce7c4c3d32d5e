"""Which network addresses may be requested: public ones, and hosts that the parameters name."""

from __future__ import annotations

import ipaddress

_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # NAT64: an IPv4 address in the last 32 bits


def is_public(address: str) -> bool:
    """Return whether a numeric address is public, also where it is wrapped in another.

    Loopback, private, link-local (cloud metadata services), multicast and reserved ones are not.
    """
    ip = ipaddress.ip_address(address.split("%")[0])  # without an interface name
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast
