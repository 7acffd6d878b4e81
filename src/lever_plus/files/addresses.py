"""Which hosts are this machine: what listens there, or is asked there, stays on it."""

from ipaddress import ip_address


def is_loopback(host: str | None) -> bool:
    """Return whether a host's name or address, without a port, is this machine's own."""
    name = (host or "").strip("[]").rstrip(".").casefold()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
