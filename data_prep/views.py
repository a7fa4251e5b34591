"""The two views of a unit: a document with StarCoder's tokens, or a dialogue; both made sound.

In: what a builder rendered, or the turns that it made. Out: a `Kept`, or a `Dropped` with the reason that `data_prep.clean` gives.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from data_prep.clean import clean, is_unsound, sound_text
from data_prep.documents import Rendered
from data_prep.drafts import Draft, RowProblem
from data_prep.records import Dropped, Item, Kept, encodable
from starchat.dialogue import Part, Record, Source, Turn

DATE = re.compile(r"\d{4}-\d\d-\d\d[ -~]{0,25}")


def document_item(rendered: Rendered, source: Source, license: str | None = None, repairs: Sequence[str] = ()) -> Item:
    """Return the document of a unit; what its format cannot hold is named among the repairs, as ``lost_...``."""
    found = list(repairs)
    parts = rendered.parts
    if is_unsound("".join([part.text for part in parts])):
        parts = tuple(Part(part.marker, _sound(part.text, found)) for part in parts)
    found += [f"lost_{loss}" for loss in rendered.losses]
    return Kept(Record(_sound_source(source), parts=parts, license=_sound_name(license)), tuple(dict.fromkeys(found)))


def dialogue_item(turns: Sequence[Turn], source: Source, license: str | None = None, repairs: Sequence[str] = (), raw: str = "") -> Item:
    """Return the dialogue of a unit, or why it is none; `raw` is what the table of dropped units shows of it."""
    try:
        draft = clean(Draft(tuple(turns), None, tuple(repairs)), control_tokens="keep")
    except RowProblem as problem:
        return Dropped(problem.reason, source.place, problem.detail, raw, problem.fault)
    return Kept(Record(_sound_source(source), draft.turns, license=_sound_name(license)), draft.repairs)


def _sound(text: str, repairs: list[str]) -> str:
    return sound_text(text, repairs) if is_unsound(text) else text


def _sound_name(name: str | None) -> str | None:
    """Return a name that can be stored."""
    return None if name is None else encodable(name.replace("\0", ""))


def _sound_source(source: Source) -> Source:
    """Return a source whose texts can be stored, with a date only if it is one: names of files may be in any encoding."""
    if source.date is not None and not DATE.fullmatch(source.date):
        source = dataclasses.replace(source, date=None)
    texts = (source.place, source.repository, source.path, source.commit, source.url)
    if all(text is None or (text.isascii() and "\0" not in text) for text in texts):
        return source
    place, repository, path, commit, url = map(_sound_name, texts)
    return dataclasses.replace(source, place=place or "", repository=repository, path=path, commit=commit, url=url)
