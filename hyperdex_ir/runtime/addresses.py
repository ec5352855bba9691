"""Addresses at which a process of a distributed run listens: the ones that were asked for, not all of its host."""

from __future__ import annotations

import errno
import ipaddress
import socket

from hyperdex_ir.errors import OptionError, PeerError

_HINT = "MASTER_ADDR must be an address of the host of rank 0, by which the other hosts reach it"


def is_loopback(host: str) -> bool:
    """Test for a host name or address that leads back to the host itself and nowhere else.

    Raises OptionError when it is no address.
    """
    return all(ipaddress.ip_address(address[0].partition("%")[0]).is_loopback for _, address in _resolve(host, 0))


def listen_at(host: str, port: int) -> int:
    """The descriptor of a TCP socket bound to that address alone.

    Raises OptionError when it is no address of this host, PeerError when another process listens there.
    """
    refused: OSError | None = None
    for family, address in _resolve(host, port):
        server = socket.socket(family, socket.SOCK_STREAM)
        try:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(address)
            return server.detach()
        except OSError as error:
            server.close()
            if refused is None or error.errno != errno.EADDRNOTAVAIL:
                refused = error
    assert refused is not None
    if refused.errno == errno.EADDRNOTAVAIL:
        raise OptionError(f"device 0 cannot listen at {host}: not an address of this host", _HINT)
    raise PeerError(
        f"device 0 cannot listen at {host}:{port}: {refused.strerror}",
        "end the process that does, or take another MASTER_PORT for all processes",
    )


def address_towards(host: str, port: int) -> str:
    """This host's own address on the way to another. Raises OptionError when there is no way."""
    reason = "no address"
    for family, address in _resolve(host, port):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # sends nothing
            try:
                probe.connect(address)
                return str(probe.getsockname()[0])
            except OSError as error:
                reason = error.strerror or str(error)
    raise OptionError(f"MASTER_ADDR={host} cannot be reached: {reason}", _HINT)


def _resolve(host: str, port: int) -> list[tuple[int, tuple]]:
    """Families and socket addresses of a host, IPv4 first, so that all processes take the same kind."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise OptionError(f"MASTER_ADDR={host} is no address: {reason}", _HINT) from None
    return sorted(((family, address) for family, _, _, _, address in found), key=lambda one: one[0] != socket.AF_INET)
