"""Who may ask the HTTP API what: the security rules, as functions of a request's head. No sockets, no routes.

* A page of a foreign site must not reach the API through the operator's browser: a Host that is not this node's is
  refused (a DNS name rebound to 127.0.0.1 arrives with the foreign name), a foreign Origin is refused.
* Acting needs the token, from everywhere. Reading needs it unless both ends of the connection are loopback addresses.
* What a load balancer asks (`Access.PROBE`) needs none: it tells one word.
"""

from __future__ import annotations

import hmac
import ipaddress
from enum import Enum
from http import HTTPStatus

from starlette.requests import Request

from agent.admin.problem import RefusedError

WILDCARDS = frozenset({"0.0.0.0", "::", "All interfaces"})


class Access(Enum):
    """What a route needs."""

    PROBE = "probe"  # no secret, from wherever the port can be reached
    READ = "read"  # no secret from the loopback interface
    ACT = "act"  # always the token


class Gate:
    """Holds the token and the interface that the API listens on."""

    def __init__(self, *, interface: str, token: str) -> None:
        self._token = token.encode("ascii")
        self._any_address = interface in WILDCARDS
        self._own_address = _address(interface)

    def __repr__(self) -> str:
        return "Gate(...)"

    def check_origin(self, request: Request) -> None:
        """Raises RefusedError for a Host or an Origin that is not this node's."""
        hosts = request.headers.getlist("host")
        # Only HTTP/1.0 may leave it out, as the probes of simple load balancers do and no browser does.
        if hosts and not (len(hosts) == 1 and self._is_own_host(hosts[0])):
            raise RefusedError(
                HTTPStatus.MISDIRECTED_REQUEST,
                "This Host header names no address of this interface. Use localhost, a loopback address, or the "
                "address in [admin] interface.",
            )
        for origin in request.headers.getlist("origin"):
            if not hosts or origin.lower() != f"http://{hosts[0].lower()}":
                raise RefusedError(HTTPStatus.FORBIDDEN, "Requests on behalf of pages of other sites are refused.")

    def check_access(self, request: Request, access: Access) -> None:
        """Raises RefusedError if the route needs a secret that the request does not bring."""
        if access is Access.PROBE or (access is Access.READ and _both_ends_loopback(request)):
            return
        if not self._has_token(request):
            raise RefusedError(
                HTTPStatus.UNAUTHORIZED,
                "This needs the header `Authorization: Bearer <token>`; the token is in the file admin.token of the "
                "state directory.",
                {"WWW-Authenticate": 'Bearer realm="pair-agent"'},
            )

    def _has_token(self, request: Request) -> bool:
        values = request.headers.getlist("authorization")
        if len(values) != 1:
            return False
        scheme, _, given = values[0].partition(" ")
        # Compared as bytes in constant time; header text is latin-1, which compare_digest refuses as str.
        return hmac.compare_digest(given.strip().encode("latin-1"), self._token) and scheme.lower() == "bearer"

    def _is_own_host(self, host_untrusted: str) -> bool:
        name = _host_name(host_untrusted)
        if name == "localhost":
            return True
        address = _address(name)
        if address is None:
            return False
        # An address cannot be rebound, so a listener on all interfaces takes each; NAT may show one we do not have.
        return address.is_loopback or self._any_address or address == self._own_address


def _host_name(host_untrusted: str) -> str:
    """The lower-case host of a Host header (RFC 9110, section 7.2) without its port, "" if it is none."""
    text = host_untrusted.strip().lower()
    if text.startswith("["):
        name, closing, port = text[1:].partition("]")
        if not closing or (port and not port.startswith(":")):
            return ""
        port = port[1:]
    else:
        name, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdigit()):
        return ""
    return name


def _address(text: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text or "")
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _both_ends_loopback(request: Request) -> bool:
    client = _address(request.client.host) if request.client else None
    server = _address((request.scope.get("server") or ("",))[0])
    return client is not None and server is not None and client.is_loopback and server.is_loopback
