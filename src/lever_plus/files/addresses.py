"""Which hosts are this machine: traffic to them never leaves it."""

from ipaddress import ip_address


def is_loopback(host: str | None) -> bool:
    """Return whether a host name or address (without a port) is this machine itself."""
    name = (host or "").strip("[]").rstrip(".").casefold()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
