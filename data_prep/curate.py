"""The curate step of the prepare stage: what builders kept, without what must not be trained on.

In: the items of all sources and the spec's key ``curate``. Out: the same items in the same order, some of them dropped with a reason or
repaired, and nothing else: read = kept + dropped holds as it did. Each step is off unless the spec names it; a record meets them in this
order, so that what somebody asked to be taken out is looked at by nothing else, and duplicates are told by what is left of a text:

==================  ======================================  ===============================================================
``opt_out``         `data_prep.opt_out`                     drop ``opt_out``, without its text; so lose all dropped units that name one
``licenses``        `data_prep.license_policy`              drop ``license_...``
``filters``         `data_prep.filters`                     drop, the reason is the rule's
==================  ======================================  ===============================================================

Each record is looked at by itself, in batches on all cores.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from data_prep.filters import FilterRules, filter_fault, filter_rules
from data_prep.item_files import Numbered
from data_prep.kinds import Setting
from data_prep.license_policy import LicenseRules, license_fault, license_rules
from data_prep.opt_out import OptOuts, open_opt_outs
from data_prep.pool import run_tasks
from data_prep.record_texts import texts_of
from data_prep.records import Dropped, Item, Kept
from data_prep.sources import as_text
from starchat.config import from_mapping, to_mapping
from starchat.dialogue import Record, to_row
from starchat.errors import UserError

Rules = TypeVar("Rules")

BATCH_CHARACTERS = 4 << 20
BATCH_ITEMS = 2_000


@dataclasses.dataclass(frozen=True)
class CurateSpec:
    """The steps of a spec's ``curate``, each with the keys of its own rules."""

    opt_out: dict[str, Any] | None = None
    licenses: dict[str, Any] | None = None
    filters: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Curation:
    """The steps, ready to be taken. `resolved` states all of their rules; `inputs` are the files that they read."""

    stated: str
    setting: Setting
    resolved: Mapping[str, Any]
    inputs: tuple[dict[str, Any], ...] = ()
    opt_outs: OptOuts | None = None
    licenses: LicenseRules | None = None
    filters: FilterRules | None = None

    def items(self, items: Iterable[Numbered]) -> Iterator[Numbered]:
        """Yield items, each as the steps leave it, in their order; the result does not depend on the number of workers."""
        batches = (_Batch(self.stated, self.setting, batch) for batch in _batches(items))
        for done in run_tasks(curate_batch, batches, self.setting.workers):
            yield from done


@dataclasses.dataclass(frozen=True, slots=True)
class _Batch:
    """Items for one task, with the spec's ``curate`` as JSON: a worker reads once what that names."""

    stated: str
    setting: Setting
    items: tuple[Numbered, ...]


def open_curation(mapping: Mapping[str, Any], place: str, setting: Setting) -> Curation:
    """Return the steps that a spec names; raise `UserError` for every fault of their keys."""
    spec = from_mapping(CurateSpec, mapping, place)
    faults: list[str] = []

    def opened(step: Callable[[Mapping[str, Any], str], Rules], name: str) -> Rules | None:
        stated = getattr(spec, name)
        try:
            return None if stated is None else step(stated, f"{place}.{name}")
        except UserError as error:
            faults.append(str(error))
            return None

    opt_outs, licenses = opened(open_opt_outs, "opt_out"), opened(license_rules, "licenses")
    filters = opened(filter_rules, "filters")
    if faults:
        raise UserError("\n".join(faults))
    rules = {"opt_out": spec.opt_out, "licenses": licenses and to_mapping(licenses), "filters": filters and to_mapping(filters)}
    resolved = {name: value for name, value in rules.items() if value is not None}
    inputs = opt_outs.described if opt_outs else ()
    return Curation(json.dumps([mapping, place]), setting, resolved, inputs, opt_outs, licenses, filters)


def curate_batch(batch: _Batch) -> list[Numbered]:
    """Return the items of a batch as the steps leave them."""
    curation = _opened(batch.stated, batch.setting)
    return [(number, curate_item(item, curation)) for number, item in batch.items]


def curate_item(item: Item, curation: Curation) -> Item:
    """Return an item as the steps leave it: itself, repaired, or dropped."""
    if isinstance(item, Dropped):
        named = curation.opt_outs is not None and curation.opt_outs.are_named_in(f"{item.place} {item.raw}")
        return dataclasses.replace(item, raw="") if named else item
    record = item.record
    if curation.opt_outs is not None and (request := curation.opt_outs.match(record.source)):
        return Dropped("opt_out", record.source.place, f"{request.name}, asked for in {request.place}", "")
    if curation.licenses is not None and (fault := license_fault(record.license, curation.licenses)):
        return _dropped(record, fault)
    if curation.filters is not None and (fault := filter_fault(record, curation.filters, _counter(curation))):
        return _dropped(record, fault)
    return item


def _dropped(record: Record, fault: tuple[str, str]) -> Dropped:
    reason, detail = fault
    return Dropped(reason, record.source.place, detail, as_text(to_row(record)))


@functools.lru_cache(4)
def _opened(stated: str, setting: Setting) -> Curation:
    mapping, place = json.loads(stated)
    return open_curation(mapping, place, setting)


def _counter(curation: Curation) -> Callable[[str], int] | None:
    if curation.filters is None or curation.filters.min_characters_per_token is None:
        return None
    return token_counter(curation.setting.tokenizer)


@functools.lru_cache(4)
def token_counter(tokenizer: str) -> Callable[[str], int]:
    """Return a function that counts the tokens of a text."""
    from starchat.hub import start_folder
    from starchat.tokens import load_tokens

    tokens = load_tokens(start_folder(tokenizer), None)
    return lambda text: len(tokens.encode_texts([text])[0])


def _batches(items: Iterable[Numbered]) -> Iterator[tuple[Numbered, ...]]:
    """Yield items in batches of about the same size."""
    batch: list[Numbered] = []
    size = 0
    for number, item in items:
        batch.append((number, item))
        size += sum(map(len, texts_of(item.record))) if isinstance(item, Kept) else len(item.raw)
        if size >= BATCH_CHARACTERS or len(batch) == BATCH_ITEMS:
            yield tuple(batch)
            batch, size = [], 0
    if batch:
        yield tuple(batch)
