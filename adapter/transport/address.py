"""Addresses of the settings as URLs. The settings have checked scheme, host and port; httpx refuses a few more."""

import httpx

from adapter.core.errors import Stop


def parsed(setting: str, address: str) -> httpx.URL:
    """The URL. Raises Stop, naming the setting, if no request can be made to it: a host that IDNA 2008 forbids, say."""
    try:
        return httpx.URL(address)
    except httpx.InvalidURL as error:
        raise Stop(f"{setting}: can't be used as a web address ({error}); write its host in ASCII (xn--…)") from None


def endpoint(url: httpx.URL) -> tuple[str, int]:
    """Its host, in ASCII, and its port."""
    return url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)
