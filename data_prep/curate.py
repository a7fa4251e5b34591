"""Curation: what builders kept, without what must not be trained on. Here: the steps of a spec, and what they do to one item.

In: the spec's key ``curate``, and items. Out: the same items, some dropped with a reason or repaired, and nothing else: read = kept +
dropped holds as it did. Each step is off unless the spec names it, and a fault where nothing stands behind the name. A record meets them in
this order, so that what somebody asked to be taken out is looked at by nothing else, benchmarks are looked for in the text as it was found,
and duplicates are told by what is left:

====================  ==================================  =================================================================
``opt_out``           `data_prep.opt_out`                 drop ``opt_out``, without its text; so lose all dropped units that name one
``licenses``          `data_prep.license_policy`          drop ``license_...``
``filters``           `data_prep.filters`                 drop, the reason is the rule's
``decontaminate``     `data_prep.decontaminate`           drop ``contaminated``; near misses are reported
``redact``            `data_prep.redact`                  repairs ``redacted_...``; drop ``secret_...`` for the kinds of `drop`
``near_duplicates``   `data_prep.near_duplicates`         drop ``near_duplicate``, or ``duplicate`` where the content is the same
====================  ==================================  =================================================================

The first five look at each record by itself (`data_prep.build_shards`); the last needs all of them (`data_prep.dataset`).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.decontaminate import DecontaminationRules, Match, Matcher, open_matcher, read_matcher
from data_prep.filters import FilterRules, filter_fault, filter_rules
from data_prep.input_files import model_inputs
from data_prep.kinds import Setting
from data_prep.license_policy import LicenseRules, license_fault, license_rules
from data_prep.matched_texts import texts_and_python
from data_prep.opt_out import OptOuts, open_opt_outs
from data_prep.preferred import DuplicateRules, duplicate_rules
from data_prep.record_redaction import RedactedRecord, redacted_record, redacted_text
from data_prep.records import Dropped, Item, Kept
from data_prep.redact import SecretRules
from data_prep.remote_files import describe_input
from data_prep.sources import as_text, find_tables, table_files
from starchat.config import from_mapping, to_mapping
from starchat.dialogue import Record, to_row
from starchat.errors import Faults, UserError


@dataclasses.dataclass(frozen=True)
class CurateSpec:
    """The steps of a spec's ``curate``, each with the keys of its own rules."""

    opt_out: dict[str, Any] | None = None
    licenses: dict[str, Any] | None = None
    filters: dict[str, Any] | None = None
    decontaminate: dict[str, Any] | None = None
    redact: dict[str, Any] | None = None
    near_duplicates: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Curation:
    """The steps, ready to be taken; `stated` is what `opened` makes them of again, in another process."""

    stated: str
    setting: Setting
    resolved: Mapping[str, Any]
    opt_outs: OptOuts | None = None
    licenses: LicenseRules | None = None
    filters: FilterRules | None = None
    matcher: Matcher | None = None
    secrets: SecretRules | None = None
    duplicates: DuplicateRules | None = None

    def inputs(self) -> list[dict[str, Any]]:
        """Return what the steps depend on besides their rules: lists, benchmarks, a model; not what lies on the Hub."""
        problems = () if self.matcher is None else [benchmark.problems for benchmark in self.matcher.rules.benchmarks]
        files = sorted({file for path in problems for table in find_tables(path) for file in table_files(table)})
        requests = () if self.opt_outs is None else self.opt_outs.described
        model = None if self.secrets is None else self.secrets.names
        return [*requests, *map(describe_input, files), *(model_inputs(model) if model is not None else ())]


def open_curation(mapping: Mapping[str, Any], place: str, setting: Setting, matcher_file: str | None = None) -> Curation:
    """Return the steps that a spec names; raise one `UserError` for the faults of all of them, in their order.

    `matcher_file` holds the matcher of benchmarks, made before, for a process that needs not make it again.
    """
    faults = Faults()
    steps: Mapping[str, Callable[[Mapping[str, Any], str], Any]] = {
        "opt_out": open_opt_outs,
        "licenses": license_rules,
        "filters": filter_rules,
        "decontaminate": _open_matcher if matcher_file is None else lambda stated, place: read_matcher(Path(matcher_file)),
        "redact": functools.partial(_secret_rules, setting=setting),
        "near_duplicates": duplicate_rules,
    }
    opened = dict.fromkeys(steps)
    for name, stated in mapping.items():
        if stated is None and name in steps:
            faults.add(f"{place}.{name}: nothing stands behind it; write {name}: {{}} for the step as it is by rule, or take the line out")
        elif faults.get(from_mapping, CurateSpec, {name: stated}, place):
            opened[name] = faults.get(steps[name], stated, f"{place}.{name}")
    faults.tell()
    opt_outs, licenses, filters, matcher, secrets, duplicates = opened.values()
    found = {
        "opt_out": mapping.get("opt_out"),
        "licenses": licenses and to_mapping(licenses),
        "filters": filters and to_mapping(filters),
        "decontaminate": matcher and to_mapping(matcher.rules),
        "redact": secrets and to_mapping(secrets),
        "near_duplicates": duplicates and to_mapping(duplicates),
    }
    resolved = {name: rules for name, rules in found.items() if rules is not None}
    return Curation(json.dumps([mapping, place]), setting, resolved, opt_outs, licenses, filters, matcher, secrets, duplicates)


@functools.lru_cache(2)
def opened(stated: str, setting: Setting, matcher_file: str | None) -> Curation:
    """Return a curation in a process that has only what it was stated as."""
    mapping, place = json.loads(stated)
    return open_curation(mapping, place, setting, matcher_file)


def _open_matcher(mapping: Mapping[str, Any], place: str) -> Matcher:
    return open_matcher(from_mapping(DecontaminationRules, mapping, place), place)


def _secret_rules(mapping: Mapping[str, Any], place: str, setting: Setting) -> SecretRules:
    """Return the rules for secrets; a style that is not stated is that of the tokenizer: StarCoder2's has tokens for what was taken out."""
    from data_prep.redact import PLACEHOLDERS
    from starchat.hub import start_folder
    from starchat.tokenizer_file import control_names

    if "style" not in mapping:
        has_tokens = control_names(start_folder(setting.tokenizer)).issuperset(PLACEHOLDERS.values())
        mapping = {**mapping, "style": "tokens" if has_tokens else "text"}
    try:
        return from_mapping(SecretRules, mapping, place)
    except UserError as error:
        raise UserError(re.sub(r"(?m)^secrets\.", lambda _: f"{place}.", str(error))) from None


def curate_item(item: Item, curation: Curation) -> tuple[Item, Sequence[Match]]:
    """Return an item as the steps leave it, itself, repaired, or dropped, and what it shares with benchmarks."""
    if isinstance(item, Dropped):
        return _clear(item, curation), ()
    record = item.record
    if curation.opt_outs is not None and (request := curation.opt_outs.match(record.source)):
        return Dropped("opt_out", record.source.place, f"{request.name}, asked for in {request.place}", ""), ()
    if curation.licenses is not None and (fault := license_fault(record.license, curation.licenses)):
        return _dropped(record, fault, curation), ()
    if curation.filters is not None and (fault := filter_fault(record, curation.filters, _counter(curation))):
        return _dropped(record, fault, curation), ()
    matches: Sequence[Match] = ()
    if curation.matcher is not None:
        matches = curation.matcher.match(*texts_and_python(record))
        if matches and matches[0].contaminated:
            return _dropped(record, ("contaminated", matches[0].detail()), curation), matches
    if curation.secrets is not None:
        found = redacted_record(record, curation.secrets)
        if not isinstance(found, RedactedRecord):
            return _dropped(record, found, curation), matches
        redacted = dataclasses.replace(found.record, placeholders=tuple(sorted({*record.placeholders, *found.placeholders})))
        item = Kept(redacted, tuple(dict.fromkeys((*item.repairs, *found.repairs))))
    return item, matches


def _dropped(record: Record, fault: tuple[str, str], curation: Curation) -> Dropped:
    return _clear(Dropped(fault[0], record.source.place, fault[1], as_text(to_row(record))), curation)


def _clear(dropped: Dropped, curation: Curation) -> Dropped:
    """Return a dropped unit without secrets in the text that is kept to look at; without any text, if it names what was opted out."""
    place, raw, detail = dropped.place, dropped.raw, dropped.detail
    if curation.opt_outs is not None and curation.opt_outs.are_named_in(f"{place} {raw}"):
        raw = ""
    if curation.secrets is not None:
        place, raw, detail = (redacted_text(text, curation.secrets) for text in (place, raw, detail))
    return dataclasses.replace(dropped, place=place, raw=raw, detail=detail)


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
