"""Columns of tables of code, by the names in use: whence a file is, when it was changed, and under which licence.

Pure: a row in, its values out. The names are those of The Stack (``max_stars_repo_path`` and the like), The Stack v2 (``repo_name``,
``revision_id``, ``revision_date``, ``star_events_count``, ``detected_licenses``), its successor with one row for each repository
(``repo_path``, ``file_path``), GitHub's (``stargazers_count``) and the plain ones. The first column that holds a value of its type counts;
a value of another type is as good as none, for no file is worth less without it.
"""

from __future__ import annotations

import datetime
import functools
import math
import re
from collections.abc import Mapping
from typing import Any

from data_prep.license_policy import NOT_STATED, names_of
from data_prep.license_texts import is_expression
from data_prep.records import encodable
from data_prep.views import DATE

REPOSITORY_COLUMNS = ("repository", "repo_name", "repo_path", "max_stars_repo_name")
PATH_COLUMNS = ("path", "file_path", "max_stars_repo_path")
LICENSE_COLUMNS = ("license", "licenses", "max_stars_repo_licenses", "detected_licenses")
COMMIT_COLUMNS = ("commit_id", "revision_id", "max_stars_repo_head_hexsha")
STARS_COLUMNS = ("max_stars_count", "star_events_count", "stargazers_count", "stars")
DATE_COLUMNS = ("date", "committer_date", "revision_date", "committed_date", "commit_date", "updated_at", "created_at")
"""When a file was last changed, the closest first. That of a star or of a visit, which The Stack has as well, says nothing about it."""

FILES_COLUMN = "files"
COLUMNS = frozenset({*REPOSITORY_COLUMNS, *PATH_COLUMNS, *LICENSE_COLUMNS, *COMMIT_COLUMNS, *STARS_COLUMNS, *DATE_COLUMNS, FILES_COLUMN})
"""All that is read of a row, besides its content."""

MAX_STARS = 2**63 - 1  # what a column of integers holds
MAX_NAME_CHARS = 60


def text_of(row: Mapping[str, Any], columns: tuple[str, ...]) -> str | None:
    """Return the text of the first column that holds one, or a list of one.

    >>> text_of({"path": None, "file_path": ["a.py"]}, PATH_COLUMNS)
    'a.py'
    """
    for value in map(row.get, columns):
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, str) and value:
            return encodable(value)
    return None


def path_of(row: Mapping[str, Any]) -> str | None:
    """Return the path of a file from the root of its repository, at which The Stack v2 begins it with a slash.

    >>> path_of({"path": "/src/a.py"})
    'src/a.py'
    """
    path = text_of(row, PATH_COLUMNS)
    return None if path is None else path.lstrip("/") or None


def stars_of(row: Mapping[str, Any]) -> int | None:
    """Return the stars of a row: a whole number, also as a float, for a column with gaps, or as digits, for a column of CSV.

    >>> stars_of({"max_stars_count": 12.0}), stars_of({"stars": "7"}), stars_of({"stars": -1})
    (12, 7, None)
    """
    for value in map(row.get, STARS_COLUMNS):
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}(?:\.0)?", value):
            value = float(value) if "." in value else int(value)
        if isinstance(value, float) and math.isfinite(value) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_STARS:
            return value
    return None


def date_of(row: Mapping[str, Any]) -> str | None:
    """Return the date of a row in UTC: a time, a day, or a text in ISO 8601, also as BigQuery writes it. What tells no zone is UTC.

    >>> date_of({"revision_date": "2021-05-04T03:02:01.5+02:00"}), date_of({"date": "2021-05-04"}), date_of({"date": "May 4"})
    ('2021-05-04T01:02:01Z', '2021-05-04T00:00:00Z', None)
    """
    for value in map(row.get, DATE_COLUMNS):
        found = value.isoformat() if isinstance(value, datetime.date) else value
        if not isinstance(found, str) or not DATE.fullmatch(found):
            continue
        try:
            moment = datetime.datetime.fromisoformat(found.removesuffix(" UTC"))
            aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.UTC)
            return aware.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        except (ValueError, OverflowError):  # no such day, or one before the year 1 elsewhere
            continue
    return None


def license_of(row: Mapping[str, Any]) -> str | None:
    """Return the SPDX expression of a row, or None if it states none. Of a list all hold: which one is meant is not known.

    >>> license_of({"licenses": ["mit", "Apache-2.0"]}), license_of({"license": "see the file"}), license_of({"licenses": []})
    ('Apache-2.0 AND MIT', 'LicenseRef-see-the-file', None)
    """
    for value in map(row.get, LICENSE_COLUMNS):
        stated = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        found = sorted({license for name in stated if isinstance(name, str) and (license := _spdx(name.strip()))})
        if found:
            return " AND ".join(f"({name})" if " OR " in name and len(found) > 1 else name for name in found)
    return None


@functools.lru_cache(4096)
def _spdx(text: str) -> str | None:
    """Return what a column says of one licence as SPDX; what is not known becomes a ``LicenseRef``, which is not permissive."""
    if text.lower() in NOT_STATED:
        return None
    if is_expression(text) and re.search(r"[\s()]", text):
        return text
    names = names_of(text)
    if len(names) == 1 and is_expression(names[0]):
        return names[0]
    return "LicenseRef-" + (re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")[:MAX_NAME_CHARS] or "unrecognised")
