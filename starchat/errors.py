"""The one exception that a user sees."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user must change. Printed without a traceback; exit status 2.

    The message says what is wrong, with its value and place; what was expected; and what to do:
    ``chats.jsonl:412: role 'bot'; expected system, user, assistant or tool; map it with roles: {bot: assistant}``
    """
