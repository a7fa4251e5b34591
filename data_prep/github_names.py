"""Names of accounts and repositories, as people write them and as sources hold them.

Pure: an entry of a list, or the address of a source, in; ``owner`` or ``owner/repository`` in lower case out, or None.
"""

from __future__ import annotations

import re

_ACCOUNT = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})(?:\[bot\])?"
_NAME = re.compile(rf"(?P<owner>{_ACCOUNT})(?:/(?P<name>[\w.-]{{1,100}}?))?(?:\.git)?/?")
_ADDRESS = re.compile(
    r"(?:git\+)?(?:(?:https?|ssh|git)://)?(?:[\w-]+@)?(?:(?:www\.)?github\.com[/:]|api\.github\.com/repos/|raw\.githubusercontent\.com/)"
    r"(?:(?:orgs|users)/)?",
    re.IGNORECASE,
)
_MAIL = re.compile(r"[^\s@/]+@[^\s@/]+\.[^\s@/]+")
_ENTRY = re.compile(r"^@|[`\"']|\s+(?:#|<!--).*")


def name_of(entry: str) -> str | None:
    """Return the account or repository that an entry names, in lower case; None if it names none.

    >>> name_of("https://github.com/Ada/Engine/tree/main"), name_of("@Ada"), name_of("ada/*"), name_of("please remove")
    ('ada/engine', 'ada', 'ada', None)
    """
    entry = entry.strip("`\"' \t")
    if _MAIL.fullmatch(entry):
        return entry.lower()
    if is_address(entry):
        return address_name(entry)
    found = _NAME.fullmatch(_ENTRY.sub("", entry).removesuffix("/*"))
    if found is None:
        return None
    return (f"{found['owner']}/{found['name']}" if found["name"] else found["owner"]).lower()


def is_address(text: str) -> bool:
    """Return whether a text begins as an address of GitHub does."""
    return _ADDRESS.match(text) is not None


def address_name(address: str) -> str | None:
    """Return the account or repository to which an address of GitHub leads, whatever of it the address is.

    >>> address_name("git@github.com:Ada/engine.git"), address_name("https://github.com/orgs/Ada?tab=x"), address_name("https://a.org/b/c")
    ('ada/engine', 'ada', None)
    """
    start = _ADDRESS.match(address)
    if start is None:
        return None
    path = re.split(r"[?#\s]", address[start.end() :], maxsplit=1)[0]
    found = _NAME.fullmatch("/".join(path.split("/")[:2]).removesuffix("/*"))
    if found is None:
        return None
    return (f"{found['owner']}/{found['name']}" if found["name"] else found["owner"]).lower()
