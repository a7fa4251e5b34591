"""Curation by licence: classes, policies, and the file that names whom a dataset is made of."""

from __future__ import annotations

import pytest

from data_prep.license_policy import Attribution, LicenseRules, license_class, license_fault, license_rules, names_of
from starchat.errors import UserError


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", "permissive"),
        ("apache-2.0", "permissive"),
        ("MIT AND BSD-3-Clause", "permissive"),
        ("Apache-2.0 WITH LLVM-exception", "permissive"),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", "permissive"),
        ("GPL-3.0-or-later", "copyleft"),
        ("agpl-3.0", "copyleft"),
        ("LGPL-2.1+", "copyleft"),
        ("MPL-2.0", "copyleft"),
        ("EUPL-1.2", "copyleft"),
        ("CC-BY-SA-4.0", "copyleft"),
        ("CC-BY-NC-SA-4.0", "copyleft"),
        ("MIT OR GPL-2.0-only", "copyleft"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "copyleft"),
        ("MIT AND LicenseRef-proprietary", "unknown"),
        ("LicenseRef-GPL", "copyleft"),
        ("LicenseRef-AGPL AND MIT", "copyleft"),
        ("GPLv3", "copyleft"),
        ("AGPLv3+", "copyleft"),
        ("LicenseRef-gplanner", "unknown"),
        ("MIT WITH Commons-Clause", "unknown"),
        ("(MIT WITH Commons-Clause)", "unknown"),
        ("CC-BY-NC-4.0", "unknown"),
        ("Elastic-2.0", "unknown"),
        (None, "none"),
        ("", "none"),
        ("NOASSERTION", "none"),
        ("no_license", "none"),
        ("()", "none"),
    ],
)
def test_class_is_that_of_the_least_free_licence(expression: str | None, expected: str) -> None:
    """Each class is told apart; a choice counts as all that it names."""
    assert license_class(expression) == expected


def test_the_four_classes_are_kept_apart() -> None:
    """A policy of one class keeps that class alone."""
    samples = {"permissive": "MIT", "copyleft": "GPL-3.0-only", "unknown": "LicenseRef-x", "none": None}
    for allowed in samples:
        kept = {name for name, text in samples.items() if license_fault(text, LicenseRules(allow=(allowed,))) is None}
        assert kept == {allowed}


def test_single_licences_are_allowed_and_denied() -> None:
    """A name beside a class admits that licence alone; a denied one is refused although its class is allowed."""
    rules = LicenseRules(allow=("permissive", "MPL-2.0"), deny=("mit",))
    assert license_fault("MPL-2.0 AND Apache-2.0", rules) is None
    assert license_fault("MPL-2.0 AND GPL-3.0-only", rules) == (
        "license_copyleft",
        "MPL-2.0 AND GPL-3.0-only; allowed: permissive, MPL-2.0",
    )
    assert license_fault("Apache-2.0 AND MIT", rules) == ("license_denied", "MIT, which the spec denies")


@pytest.mark.parametrize(
    ("expression", "denied"),
    [
        ("AGPL-3.0-only", "AGPL-3.0"),
        ("AGPL-3.0", "AGPL-3.0-only"),
        ("GPL-3.0-only", "gpl-3.0-only"),
        ("gpl-3.0", "GPL-3.0"),
        ("GPL-2.0+", "GPL-2.0-or-later"),
        ("GPLv2", "GPL-2.0"),
        ("MPL-1.1+", "MPL-1.1"),
        ("LicenseRef-AGPL", "AGPL-3.0"),
        ("AGPL-3.0-only", "AGPL"),
        ("mpl-2.0", "MPL-2.0"),
        ("MIT WITH Commons-Clause", "Commons-Clause"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "classpath-exception-2.0"),
        ("MIT AND LicenseRef-x", "unknown"),
    ],
)
def test_what_is_denied_is_denied_in_every_spelling(expression: str, denied: str) -> None:
    """Case, the names that SPDX gave up, exceptions and classes."""
    fault = license_fault(expression, LicenseRules(allow=("permissive", "copyleft", "unknown"), deny=(denied,)))
    assert fault is not None and fault[0] == "license_denied"


@pytest.mark.parametrize(
    ("expression", "allowed", "kept"),
    [
        ("mpl-2.0", "MPL-2.0", True),
        ("GPL-3.0-only", "GPL-3.0", True),
        ("GPL-3.0-or-later", "GPL-3.0", True),
        ("GPL-3.0+", "GPL-3.0-or-later", True),
        ("GPL-3.0", "GPL-3.0-only", False),
        ("GPL-3.0-or-later", "GPL-3.0-only", False),
        ("LGPL-3.0-only", "GPL-3.0", False),
        ("LicenseRef-GPL", "GPL-3.0", False),
        ("GPL-2.0-only WITH Linux-syscall-note", "GPL-2.0-only", True),
    ],
)
def test_what_is_allowed_is_allowed_in_every_spelling(expression: str, allowed: str, kept: bool) -> None:
    """A name that may be one of two is kept only where both are allowed."""
    assert (license_fault(expression, LicenseRules(allow=(allowed,))) is None) == kept


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"allow": []}, r"spec\.allow: is empty"),
        ({"allow": ["permisive"]}, "'permisive' is neither a class nor .* did you mean 'permissive'"),
        ({"deny": ["MIT OR BSD"]}, "one licence"),
        ({"alow": ["permissive"]}, "unknown key 'alow'; did you mean 'allow'"),
        ({"allow": "permissive"}, "allow"),
    ],
)
def test_faulty_rules_are_refused(mapping: dict[str, object], message: str) -> None:
    """A typo would keep or drop everything in silence."""
    with pytest.raises(UserError, match=message):
        license_rules(mapping, "spec")


def test_names_lose_their_exceptions_and_spellings() -> None:
    """Names are compared as SPDX spells them."""
    assert names_of("mit AND (the mit license OR gpl-3.0 WITH GCC-exception-3.1)") == ("MIT", "gpl-3.0")


def test_attribution_counts_rows_by_repository_and_licence() -> None:
    """One line a repository and licence, in order, whatever the order of the rows."""
    rows = [("b/y", "MIT", "https://x/1"), ("a/x", None, None), ("b/y", "MIT", "https://x/2"), (None, "MIT", "https://x/3")]
    forward, backward = Attribution(), Attribution()
    for row in rows:
        forward.add(*row)
    for row in reversed(rows):
        backward.add(*row)
    lines = list(forward.lines())
    assert lines == list(backward.lines())
    assert [(line["repository"], line["url"], line["class"], line["rows"]) for line in lines] == [
        (None, "https://x/3", "permissive", 1),
        ("a/x", None, "none", 1),
        ("b/y", None, "permissive", 2),
    ]
