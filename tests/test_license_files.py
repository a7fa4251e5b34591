"""Licences of texts, headers and trees: each is recognised, and what only resembles it is not."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from identify.vendor.licenses import LICENSES

from data_prep.license_files import find_licenses, is_license_path
from data_prep.license_metadata import metadata_license
from data_prep.license_policy import license_class
from data_prep.license_texts import UNRECOGNISED, header_license, is_expression, license_of_text

TEXTS = dict(LICENSES)
MIT, APACHE, BSD3 = TEXTS["MIT"], TEXTS["Apache-2.0"], TEXTS["BSD-3-Clause"]
OTHER = "".join(f"By clause {n} of these terms you agree to rule {7 * n}. " for n in range(60))


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_each_text_is_recognised_and_survives_a_change_of_layout(name):
    found = license_of_text(TEXTS[name])
    assert found in (name, f"{name}-only")
    assert license_of_text("The licence of Acme\n\nCopyright (c) 2001-2024 Ann and Bob\n\n" + TEXTS[name]) == found
    assert license_of_text(re.sub(r"\s+", "\n", TEXTS[name].upper())) == found
    assert license_of_text("".join(f" * {line}\n" for line in TEXTS[name].split("\n"))) == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (APACHE.partition("END OF TERMS")[0], "Apache-2.0"),
        (f"{MIT}\n\n{APACHE}", "Apache-2.0 AND MIT"),
        (MIT + "\nThe Software shall be used for Good, not Evil.\n", "JSON AND MIT"),
        ('"Commons Clause" License Condition v1.0\n\n' + MIT, "LicenseRef-Commons-Clause AND MIT"),
        (BSD3 + "\n4. All advertising materials mentioning features of this software must say so.\n", "BSD-4-Clause"),
        (BSD3.replace("the copyright holder", "Acme Incorporated"), "BSD-3-Clause"),
        (MIT + OTHER, None),
        (MIT + "\nYou may not use this for war.\n", "LicenseRef-further-conditions AND MIT"),
        (MIT + "\nCommercial use requires a paid license from Acme.\n", "LicenseRef-further-conditions AND MIT"),
        (MIT + "\nA commercial licence is sold by Acme.\n", "LicenseRef-further-conditions AND MIT"),
        (MIT + "\nWritten by Ann, with thanks to Bob.\n", "MIT"),
        ("licensed under the GPLv3", "GPL-3.0-only"),
        (OTHER, None),
        ("", None),
    ],
)
def test_texts_that_differ(text, expected):
    assert license_of_text(text) == expected
    assert license_class(expected) != "permissive" or expected in ("Apache-2.0", "Apache-2.0 AND MIT", "BSD-3-Clause", "MIT")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("# SPDX-License-Identifier: MIT\n", "MIT"),
        ("/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */", "(GPL-2.0 WITH Linux-syscall-note) OR MIT"),
        ("<!-- SPDX-License-Identifier: Apache-2.0 -->", "Apache-2.0"),
        ("(* SPDX-License-Identifier: ISC *)", "ISC"),
        ("# SPDX-License-Identifier: MIT\n# SPDX-License-Identifier: Zlib", "MIT AND Zlib"),
        ("# SPDX-License-Identifier: \n", None),
        ("// SPDX-License-Identifier: MIT or GPL-3.0-only\n", "MIT OR GPL-3.0-only"),
        ("// SPDX-License-Identifier: (MIT or GPL-2.0 with Classpath-exception-2.0)\n", "(MIT OR GPL-2.0 WITH Classpath-exception-2.0)"),
        ("// SPDX-License-Identifier: MIT/GPL-2.0\n", "MIT OR GPL-2.0"),
        ("// SPDX-License-Identifier: MIT | GPL-2.0\n", "MIT OR GPL-2.0"),
        ("// SPDX-License-Identifier: MIT, GPL-2.0\n", "MIT AND GPL-2.0"),
        ("// SPDX-License-Identifier: MIT and GPL-2.0\n", "MIT AND GPL-2.0"),
        ("// SPDX-License-Identifier: MIT GPL-2.0\n", UNRECOGNISED),
        ("// SPDX-License-Identifier: MIT unless you sell it\n", UNRECOGNISED),
        ("/* SPDX-License-Identifier: MIT */ int a; /* or b */", "MIT"),
        ("// SPDX-License-Identifier: MIT  Copyright (c) 2020 Ann", "MIT"),
        ("#  SPDX-License-Identifier: MIT          #\n", "MIT"),
        ('tag = "SPDX-License-Identifier: MIT", "x"\n', "MIT"),
        ('re.compile("SPDX-License-Identifier:[ ]*(.*)")', None),
        ("// Licensed under the Apache License, Version 2.0 (the\n// License)", "Apache-2.0"),
        (" * the terms of the GNU General Public License as published\n * by ..., version 2, or\n * any later version", "GPL-2.0-or-later"),
        ("GNU Lesser General Public License version 2.1 only", "LGPL-2.1-only"),
        ("under the GNU Affero General Public License", "LicenseRef-AGPL"),
        ("the terms of the Mozilla Public License, v. 2.0.", "MPL-2.0"),
        ("# Permission is hereby granted, free of charge, to any\n# person obtaining a copy", "MIT"),
        ("// Licensed under the Apache License, Version 2.0 or\n// <opensource.org/licenses/MIT>, at your option", "Apache-2.0 OR MIT"),
        ("# Copyright Acme. Proprietary and confidential.", "LicenseRef-proprietary"),
        ("# License: GPLv3", "GPL-3.0-only"),
        ("# License: GNU LGPL v2+", "LGPL-2.0-or-later"),
        ("__license__ = 'AGPL-3.0-or-later'", "AGPL-3.0-or-later"),
        ("# GNU GPL v3", "GPL-3.0-only"),
        ("# Licensed under GPL-3.0", "GPL-3.0-only"),
        ("# This plugin is GPL v2 licensed", "GPL-2.0-only"),
        ("# see https://www.gnu.org/licenses/old-licenses/gpl-2.0.html, which is the licence", "GPL-2.0-only"),
        ("// Dual licensed under the MIT and GPL licenses.", "LicenseRef-GPL"),
        ("// License: MIT or GPL", "LicenseRef-GPL"),
        ("# The text is released under the CC-BY-NC-ND license, and code under the MIT license", "LicenseRef-CC-BY-NC-ND AND MIT"),
        ("# Licensed under CC BY-NC 4.0", "CC-BY-NC-4.0"),
        ("# licence: CC-BY-SA\n# https://creativecommons.org/licenses/by-sa/3.0/", "CC-BY-SA-3.0"),
        ("# a licence that goes with the GPL; nothing GPLed", None),
        ("LICENSES = ['MIT', 'GPL-3.0']", None),
        ("# This module reads licence files.", None),
        ("\n" * 3000 + "# SPDX-License-Identifier: MIT\n", None),
    ],
)  # fmt: skip
def test_headers(header, expected):
    assert header_license(header) == expected


@given(st.text(), st.sampled_from(["SPDX-License-Identifier: ", "GNU General Public License ", "licence"]))
def test_no_text_makes_the_readers_fail(text, sign):
    for found in (header_license(sign + text), license_of_text(sign + text)):
        assert found is None or is_expression(found), found


def tree(files: dict[str, str], stated: str | None = None):
    return find_licenses(files, lambda paths: ((path, files[path]) for path in paths), stated)


ACME = "Copyright 2024 Acme Inc. All rights reserved. No part of this folder may be copied or used without a signed agreement."
UNKNOWN_MIT = f"MIT AND {UNRECOGNISED}"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"LICENSE": MIT, "lib/LICENSE": ACME}, UNRECOGNISED),
        ({"LICENSE": MIT, "lib/COPYING": "licensed under the GPLv3"}, "GPL-3.0-only"),
        ({"LICENSE": MIT, "lib/LICENSE": "Copyright 2024 Acme. All rights reserved."}, UNRECOGNISED),
        ({"LICENSE": MIT, "lib/LICENSE": "LICENSE\n\nYou may not read this. See the LICENSE file of Acme."}, UNRECOGNISED),
        ({"LICENSE": MIT, "lib/LICENSE": "For licensing, call Acme."}, UNRECOGNISED),
        ({"LICENSE": MIT, "lib/LICENSE": "../LICENSE"}, "MIT"),
        ({"LICENSE": MIT, "lib/LICENSE": "See the LICENSE file in the root of this repository."}, "MIT"),
        ({"LICENSE": MIT, "lib/license.rst": "BSD-3-Clause License\n====\n\n.. literalinclude:: ../LICENSE.txt\n"}, "MIT"),
        ({"LICENSE": MIT, "lib/LICENSE": "See the\n[rules](https://github.com/o/r/blob/main/CONTRIBUTING.md)."}, "MIT"),
        ({"LICENSE": MIT, "lib/LICENSE": " \n"}, "MIT"),
        ({"LICENSE": MIT, "lib/copyright.txt": "Copyright 2024 Acme. All rights reserved."}, "MIT"),
        ({"LICENSE": MIT, "lib/copyright.txt": ACME}, UNRECOGNISED),
        ({"lib/LICENSE": "The MIT License (MIT)\nCopyright (c) 2020 Ann\n"}, "MIT"),
        ({"lib/LICENSE": ACME, "lib/package.json": '{"license": "MIT"}'}, UNKNOWN_MIT),
        ({"lib/LICENSE": OTHER, "lib/package.json": '{"license": "ISC"}'}, f"ISC AND {UNRECOGNISED}"),
        ({"lib/LICENSE": "This is MIT-like. " + OTHER, "lib/package.json": '{"license": "MIT"}'}, "MIT"),
    ],
)  # fmt: skip
def test_what_a_licence_file_that_is_not_recognised_states(files, expected):
    """It points to another file, or is unknown; it is not less than that because it is short."""
    assert tree(files).of("lib/a.py") == (expected, False)


@pytest.mark.parametrize("text", ["see " * 100, "see " + "a." * 190, "see " + "./" * 190, "see a/b:" * 50, "a/" * 200 + "!"])
def test_a_short_licence_file_takes_no_longer_than_it_is(text):
    """A name of a file may be anywhere in it, and be anything."""
    begin = time.process_time()
    assert tree({"LICENSE": text}).of("a.py") == (UNRECOGNISED, False)
    assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"package.json": '{"license": "GPL-3.0-or-later"}'}, "GPL-3.0-or-later AND MIT"),
        ({"package.json": '{"license": "UNLICENSED"}'}, "LicenseRef-proprietary AND MIT"),
        ({"package.json": '{"licenses": [{"type": "MIT"}, {"type": "GPL-2.0"}]}'}, "GPL-2.0-only AND MIT"),
        ({"setup.cfg": "[metadata]\nlicense = GPL-3.0\n"}, "GPL-3.0-only AND MIT"),
        ({"setup.py": "setup(name='x', license='GPLv3')"}, "GPL-3.0-only AND MIT"),
        ({"pyproject.toml": '[tool.poetry]\nlicense = "AGPL-3.0-only"'}, "AGPL-3.0-only AND MIT"),
        ({"package.json": '{"license": "MIT OR Apache-2.0"}'}, "MIT OR Apache-2.0"),
        ({"package.json": '{"license": "MIT"}', "setup.cfg": "[metadata]\nlicense = MIT License\n"}, "MIT"),
        ({"setup.py": "setup(license='LICENSE', license_files=['GPL.txt'])"}, "MIT"),
        ({"setup.py": "setup(license='BSD')"}, "MIT"),
    ],
)
def test_metadata_that_says_more_than_the_licence_file(metadata, expected):
    """Both hold; metadata of the same licence, or that only says where to look, changes nothing."""
    assert tree({"LICENSE": MIT, **metadata}).of("a.py") == (expected, False)


def test_metadata_of_two_kinds_both_hold():
    """Neither file of a folder comes before the other."""
    files = {"Cargo.toml": '[package]\nlicense = "MIT"', "package.json": '{"license": "GPL-3.0-only"}'}
    for order in (list(files), list(files)[::-1]):
        assert tree({name: files[name] for name in order}).of("a.py") == ("GPL-3.0-only AND MIT", False)


@pytest.mark.parametrize(
    ("files", "path", "expected"),
    [
        ({"LICENSE": MIT}, "a/b.py", "MIT"),
        ({"LICENSE": MIT, "a/COPYING": TEXTS["GPL-2.0"]}, "a/b.py", "GPL-2.0-only"),
        ({"LICENSE": MIT, "a/COPYING": TEXTS["GPL-2.0"]}, "ab/b.py", "MIT"),
        ({"LICENSE": OTHER}, "b.py", UNRECOGNISED),
        ({"LICENSE-MIT": MIT, "LICENSE-APACHE": APACHE}, "b.rs", "Apache-2.0 AND MIT"),
        ({"LICENSE-MIT": MIT, "LICENSE-AP": APACHE, "Cargo.toml": '[package]\nlicense = "MIT OR Apache-2.0"'}, "b", "MIT OR Apache-2.0"),
        ({"LICENSE": MIT, "Cargo.toml": '[package]\nlicense = "GPL-3.0"'}, "b.rs", "GPL-3.0-only AND MIT"),
        ({"COPYING": TEXTS["GPL-3.0"], "setup.cfg": "[metadata]\nlicense = GPL-3.0-or-later\n"}, "b.py", "GPL-3.0-or-later"),
        ({"pyproject.toml": '[project]\nlicense = "MIT"\n'}, "b.py", "MIT"),
        ({"package.json": '{"license": "ISC"}', "sub/package.json": '{"license": "SEE LICENSE IN x"}'}, "sub/b.js", "ISC"),
        ({"LICENSE": "See LICENSE.MIT or LICENSE.APACHE.", "LICENSE.MIT": MIT}, "b.py", "MIT"),
        ({"LICENSE": MIT, "docs/license.rst": "The text is in the file LICENSE."}, "docs/a.rst", "MIT"),
        ({"LICENSE": MIT, "LICENSES/GPL-3.0.txt": TEXTS["GPL-3.0"]}, "a.py", "MIT"),
        ({"LICENSE": MIT, "a.png.license": "SPDX-License-Identifier: CC0-1.0"}, "a.png", "CC0-1.0"),
        ({}, "a.py", None),
    ],
)  # fmt: skip
def test_what_is_nearer_decides(files, path, expected):
    assert tree(files).of(path) == (expected, path.endswith(".png"))


def test_what_the_spec_states_is_the_roots():
    licenses = tree({"LICENSE": MIT, "lib/COPYING": TEXTS["GPL-2.0"]}, stated="LicenseRef-ours")
    assert licenses.of("a.py") == ("LicenseRef-ours", False)
    assert licenses.of("lib/a.py") == ("GPL-2.0-only", False)


def test_reuse():
    toml = """version = 1
[[annotations]]
path = "src/**"
SPDX-License-Identifier = "MIT"
[[annotations]]
path = ["src/gpl/*", "odd\\\\*name"]
precedence = "override"
SPDX-License-Identifier = ["GPL-3.0-only", "MIT"]
"""
    licenses = tree({"REUSE.toml": toml, "sub/REUSE.toml": toml, "LICENSE": APACHE})
    assert licenses.of("src/a/b.py") == ("MIT", False)
    assert licenses.of("src/gpl/b.py") == ("GPL-3.0-only AND MIT", True)
    assert licenses.of("src/gpl/a/b.py") == ("MIT", False), "one star stays in its folder"
    assert licenses.of("sub/src/a.py") == ("MIT", False) and licenses.of("sub/a.py") == ("Apache-2.0", False)
    assert licenses.of("odd*name") == ("GPL-3.0-only AND MIT", True)
    dep5 = "Format: x\n\nFiles: img/* doc/a?.md\nCopyright: Ann\nLicense: CC0-1.0\n\nFiles: *.c\nLicense: MIT\n the text\n"
    old = tree({".reuse/dep5": dep5})
    assert [old.of(p)[0] for p in ("img/x/y.png", "doc/ab.md", "doc/abc.md", "src/a.c")] == ["CC0-1.0", "CC0-1.0", None, "MIT"]


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("**a*b", "xa/ab", True),
        ("**a*b", "xa/b", False),
        ("a*b*c", "abxbc", True),
        ("*/b*c", "a/bbc", True),
        ("*/b*c", "a/a/bc", False),
        ("**/*.c", "a/b/c.c", True),
        ("a**b**c", "a/b/c/b/c", True),
        ("***", "a/b", True),
        ("**a*c**d*e", "ab/ac/d/de", True),
        ("**a" * 40 + "b", "a" * 4000, False),
        ("*a" * 40 + "**b", "a" * 4000, False),
    ],
)
def test_patterns_of_reuse(pattern, path, fits):
    begin = time.process_time()
    toml = f'[[annotations]]\npath = "{pattern}"\nSPDX-License-Identifier = "MIT"\n'
    assert tree({"REUSE.toml": toml}).of(path) == ("MIT" if fits else None, False)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("text", ["\n" * 100_000, "-\n" * 50_000, "licensed under (" * 200, "license: a or " * 200, "cc-by-nc-" * 300])
def test_a_licence_takes_no_longer_than_it_is(text):
    begin = time.process_time()
    assert license_of_text(text) is None
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("name", ["REUSE.toml", "pyproject.toml", "package.json", "Cargo.toml", "setup.cfg", ".reuse/dep5", "LICENSE"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "{",
        "version = " + "9" * 5000,
        "[[annotations]]\npath=1",
        '{"license": {"a": 1}}',
        "[project]\nlicense = 3",
        "\0",
        "[x",
        "Files: *\nLicense: ((",
    ],
)
def test_damaged_files_state_nothing(name, text):
    assert tree({name: text}).of("a.py") in ((None, False), (UNRECOGNISED, False))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("pyproject.toml", '[project]\nlicense = {text = "Apache 2.0"}', "Apache-2.0"),
        ("pyproject.toml", '[project]\nlicense = {file = "LICENSE"}', None),
        ("package.json", '{"license": {"type": "BSD-3-Clause"}}', "BSD-3-Clause"),
        ("package.json", '{"license": "UNLICENSED"}', "LicenseRef-proprietary"),
        ("package.json", "[1]", None),
        ("Cargo.toml", '[package]\nlicense = "MIT/Apache-2.0"', "MIT OR Apache-2.0"),
        ("Cargo.toml", "[package]\nlicense.workspace = true", None),
        ("Cargo.toml", '[package]\nlicense = "mit or GPL-2.0"', "mit OR GPL-2.0"),
        ("pyproject.toml", '[tool.poetry]\nlicense = "GPL-3.0-only"', "GPL-3.0-only"),
        ("pyproject.toml", '[project]\nclassifiers = ["License :: OSI Approved :: GNU Affero General Public License v3"]', "AGPL-3.0-only"),
        ("setup.cfg", "[metadata]\nclassifiers =\n  License :: OSI Approved :: MIT License\n  License :: OSI Approved\n", "MIT"),
        ("setup.cfg", "[metadata]\nlicense = MPL 2.0\n", "MPL-2.0"),
        ("setup.py", 'setup(license="MIT", classifiers=["License :: Other/Proprietary License"])', "LicenseRef-proprietary AND MIT"),
        ("setup.py", 'setup("license", license_file="GPLv3")', None),
        ("package.json", '{"licenses": [{"type": "GPL-2.0"}]}', "GPL-2.0-only"),
        ("package.json", '{"licenses": 3}', None),
        ("setup.cfg", "[metadata]\nlicense = BSD\n", None),
        ("setup.cfg", "[metadata]\nlicense = My own terms\n", None),
    ],
)
def test_metadata(name, text, expected):
    assert metadata_license(name, text) == expected


def test_names_of_licence_files():
    for path in ("LICENCE", "license.txt", "COPYING.LESSER", "UNLICENSE", "MIT-LICENSE.txt", "a/LICENSE-APACHE"):
        assert is_license_path(path), path
    for path in ("licenses.py", "license_checker.md5", "src/license/a.go", "LICENSE.tmpl", "copyrighted.txt"):
        assert not is_license_path(path), path
