"""Which network addresses a service may be sent to: public ones only, however they are written.

A client that names a URL makes the service connect for it (server-side request forgery). Private networks, the machine
itself, link-local addresses and the metadata services of clouds must stay out of reach, also when they hide inside an
IPv6 address that a gateway would translate back to IPv4: all such prefixes are refused as a whole.
"""

from __future__ import annotations

import ipaddress

_REFUSED = tuple(
    map(
        ipaddress.ip_network,
        (
            # From the special-purpose registries of IANA; releases of Python differ in what they call global.
            *("192.0.0.0/24", "192.88.99.0/24", "100::/64", "2001::/23", "3fff::/20", "5f00::/16"),
            # IPv6 that stands for IPv4: compatible, NAT64 (both prefixes) and 6to4. Teredo lies in 2001::/23.
            *("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16"),
            "168.63.129.16/32",  # host services of Azure, at an address that looks public
        ),
    )
)


def is_public(text: str) -> bool:
    """Whether an address, as a resolver gives it, is one of the open Internet.

    Example:
        >>> is_public("93.184.215.14"), is_public("127.0.0.1"), is_public("::ffff:10.0.0.1"), is_public("fe80::1%eth0")
        (True, False, False, False)
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        address = address.ipv4_mapped or address
    if any(address.version == network.version and address in network for network in _REFUSED):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved
