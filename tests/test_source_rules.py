"""Each published threshold fires where it should and spares its neighbour."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_prep.file_text import read_text
from data_prep.generated import generated_name, generated_text, is_test, vendored
from data_prep.languages import languages
from data_prep.source_rules import _ENCODED, _RUNS, PRESETS, encoded_data, fault_of, is_kept, limits_for

CODE = "def add(first, second):\n    return first + second\n\n\n"
MUCH = CODE * 20
BASE64 = "'" + "QUJD" * 200


def reason(text: str, thresholds: str, language: str, extension: str) -> str | None:
    limits = limits_for(thresholds, language, extension)
    assert limits is not None
    fault = fault_of(text, limits)
    return fault and fault[0]


@pytest.mark.parametrize(
    ("thresholds", "language", "extension", "bad", "good", "expected"),
    [
        ("starcoder", "Python", ".py", MUCH + "x" * 1001, MUCH + "x" * 1000, "long_line"),
        ("starcoder2", "Python", ".py", MUCH + "x." * 501, MUCH + "x." * 500, "long_line"),
        ("starcoder", "Python", ".py", "x" * 1001 + "\r\n" + MUCH, "x" * 1000 + "\r\n" + MUCH, "long_line"),
        ("starcoder", "Python", ".py", ("x" * 100 + "\n") * 400 + "x" * 101, ("x" * 100 + "\n") * 400, "long_mean_line"),
        ("starcoder2", "Python", ".py", "x." * 98 + "\n", "x." * 50 + "\r\n", "long_mean_line"),
        ("starcoder2", "Python", ".py", ("x." * 65 + "\n") * 3, ("x." * 50 + "\n") * 3, "long_mean_line"),
        ("starcoder", "C", ".c", "+-*/\n" * 16 + "a" * 26, "+-*/\n" * 16 + "a" * 27, "few_alphanumerics"),
        ("starcoder2", "C", ".c", "1_3-\n" * 16 + "a" * 26, "1_3-\n" * 16 + "a" * 27, "few_letters"),
        ("starcoder", "Scheme", ".scm", "1 2 3 4\n" * 20, "(ab cd) 1\n" * 20, "few_letters"),
        ("starcoder", "JSON", ".json", '{"a": 1}', '{"a": "' + "b" * 41 + '"}', "few_characters"),
        ("starcoder", "JSON", ".json", '{"a": "' + "b" * 5000 + '"}', '{"a": "' + "b" * 4000 + '"}', "many_characters"),
        ("starcoder", "YAML", ".yml", "a: 1234567890\n" * 20, "name: value\n" * 20, "few_letters"),
        ("starcoder", "Python", ".py", '<?xml version="1.0"?>' + CODE, CODE + " " * 90 + '<?xml version="1.0"?>', "xml"),
        ("starcoder2", "JSON", ".json", '"name",\n' * 513, '"name",\n' * 512, "many_lines"),
        ("starcoder2", "Python", ".py", "a;\n" * 100_001, "a;\n" * 100_000, "many_lines"),
        ("starcoder2", "HTML", ".html", "<p class='of many words'>no</p>" * 50, "<p>" + "some words " * 20, "little_visible_text"),
        ("starcoder2", "HTML", ".html", "<p>" + "my word; " * 11, "<p>" + "my word; " * 12, "little_visible_text"),
        ("starcoder2", "Python", ".py", CODE * 9 + BASE64 + "\n" + BASE64[1:], CODE * 99 + BASE64, "encoded_data"),
    ],
)  # fmt: skip
def test_thresholds(thresholds, language, extension, bad, good, expected):
    assert reason(bad, thresholds, language, extension) == expected
    assert reason(good, thresholds, language, extension) is None
    assert reason(bad, "none", language, extension) is None


def test_where_the_thresholds_do_not_hold():
    long = CODE + "word " * 300
    assert reason(long, "starcoder", "Markdown", ".md") is None and reason(long, "starcoder2", "Markdown", ".md") is None
    assert reason("word " * 20_000, "starcoder2", "TeX", ".tex") is None
    assert reason("word " * 20_001, "starcoder2", "TeX", ".tex") == "long_line"
    assert reason("123 456;\n" * 30, "starcoder2", "WebAssembly", ".wat") is None
    assert reason('<?xml version="1.0"?>\n<xsl:template match="a"/>', "starcoder", "XSLT", ".xsl") is None


def test_what_is_kept_at_all():
    assert limits_for("starcoder", "C#", ".csx") is None and limits_for("starcoder2", "C#", ".csx") is not None
    assert limits_for("starcoder", "C#", ".cs") is not None
    for thresholds in ("starcoder", "starcoder2", "none"):
        assert is_kept("Go", thresholds) and is_kept("SQL", thresholds) and not is_kept("CSV", thresholds)
        assert not is_kept("Jupyter Notebook", thresholds), "kind: notebooks reads them"
    assert not is_kept("Vue", "starcoder")
    assert {preset["thresholds"] for name, preset in PRESETS.items() if name != "none"} == {"starcoder", "starcoder2"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x = '" + "QUJD" * 257 + "'", "in base64"),
        ("x = [" + "0xff," * 300 + "]", "in hexadecimal"),
        ("x = '" + "\\u00e9" * 200 + "'", "in Unicode escapes"),
        ("'" + "QUJD" * 20 + "'\n" + "a b\n" * 10, "80 of 123 characters in base64"),
    ],
)
def test_encoded_data(text, found):
    reason, detail = encoded_data(text)
    assert reason == "encoded_data" and detail.endswith(found)
    assert encoded_data(CODE * 40 + text[:90]) is None


BITS = [
    "0x1f, ",
    "\\x41",
    "AB ",
    "cd,",
    "\u00a0",
    "é",
    "\u2003",
    "QUJD" * 20,
    "\\u00e9" * 9,
    "?",
    "\n",
    "\x1c",
    "12 34 56 78 9a bc de f0 ",
    " ",
    "G",
]


@given(st.lists(st.sampled_from(BITS), max_size=40).map("".join))
@example("\u2003".join(["ab"] * 9))
@example("ab,\x1c" * 9)
def test_no_encoded_data_is_missed_by_the_look_for_long_runs(text: str) -> None:
    """Every stretch that an expression finds has a run as long as is looked for."""
    data = text.encode("ascii", "replace")
    for (name, pattern), (signs, between, least) in zip(_ENCODED, _RUNS, strict=True):
        assert pattern.search(text) is None or b"1" * least in data.translate(signs, between), name


def test_a_long_stretch_counts_however_large_the_file_is():
    assert encoded_data(CODE * 400 + "'" + "QUJD" * 257 + "'") == ("encoded_data", "a stretch of 1028 characters in base64")
    assert encoded_data(CODE * 400 + "'" + "QUJD" * 256 + "'") is None


@given(
    st.text(),
    st.sampled_from(["starcoder", "starcoder2", "none"]),
    st.sampled_from(sorted(languages())),
    st.sampled_from([".py", ".md", ""]),
)
def test_no_text_makes_a_rule_fail(text, thresholds, language, extension):
    limits = limits_for(thresholds, language, extension)
    fault = limits and fault_of(text, limits)
    assert fault is None or (fault[0].isidentifier() and fault[1])
    generated_text(f"a{extension}", text)


@pytest.mark.parametrize(
    "text", ["<" * 200_000, "<!--" * 50_000, "<script>" * 50_000, "00 " * 100_000, "ff" * 100_000, ("ff " * 7 + " " * 1000 + "g") * 200]
)
def test_rules_take_no_longer_than_the_text_is(text):
    begin = time.process_time()
    fault_of("word " * 9 + text, limits_for("starcoder2", "HTML", ".html"))
    generated_text("a.js", text)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("text", ["<meta " * 160_000, "<meta " + "name=generator " * 70_000])
def test_what_a_head_says_is_found_in_a_time_that_grows_with_it_only(text):
    begin = time.process_time()
    assert generated_text("a.html", "generator " + text) is None
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    ("path", "others"),
    [
        ("web/node_modules/x/index.js", "web/node/index.js"),
        ("third_party/zlib/inflate.c", "third/zlib/inflate.c"),
        ("pip/_vendor/rich/box.py", "pip/vendors.py"),
        ("js/jquery-3.1.js", "js/query.js"),
        ("deps/lua/lapi.c", "src/deps.c"),
        ("types/node.d.ts", "types/node.ts"),
    ],
)
def test_vendored(path, others):
    assert vendored(path) and not vendored(others)


@pytest.mark.parametrize(
    ("path", "others"),
    [
        ("package-lock.json", "package.json"),
        ("a/Cargo.lock", "a/Cargo.toml"),
        ("dist/app.min.js", "src/app.js"),
        ("a.css.map", "map.css"),
        ("pb/user_pb2.py", "pb/user_pb.py"),
        ("api/v1/x.pb.go", "api/v1/pb.go"),
        ("ios/Pods/A/a.swift", "ios/Podsy/a.swift"),
        ("ui/Form.Designer.cs", "ui/Designer.cs"),
    ],
)
def test_generated_by_name(path, others):
    assert generated_name(path) and not generated_name(others)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.go", "// Code generated by protoc-gen-go. DO NOT EDIT.\npackage a\n"),
        ("a.py", "# Generated by the protocol buffer compiler.  DO NOT EDIT!\nx = 1\n"),
        ("a.php", "<?php\n/* @generated by hand of a tool */\n"),
        ("a.c", "/* A Bison parser, made by GNU Bison 3.8.2.  */\n"),
        ("a.java", "/* The following code was generated by JFlex 1.8 */\n"),
        ("a.cs", "// <auto-generated>\n//   by a tool\n"),
        ("a.html", '<!doctype html>\n<meta name="generator" content="org mode">\n'),
        ("a.rb", "#\n# This file is automatically generated\n"),
        ("a.js", "var a=1;" * 30),
        ("a.js", "var a = 1;\n//# sourceMappingURL=a.js.map\n"),
    ],
)
def test_generated_by_text(path, text):
    assert generated_text(path, text)
    assert generated_text("a.py", "'''Tables that can be generated: see the generator.'''\n" + CODE) is None
    assert generated_text("a.py", "\n" * 50 + text) is None or path == "a.js", "the head alone is looked at"


@pytest.mark.parametrize(
    "path", ["tests/a.py", "a/__tests__/b.js", "pkg/a_test.go", "src/B.spec.ts", "src/FooTest.java", "conftest.py", "test_x.c"]
)
def test_tests(path):
    assert is_test(path)
    assert not is_test("src/contest/attestation.py") and not is_test("src/Latest.java") and not is_test("specifics/a.rb")


@pytest.mark.parametrize(
    ("text", "charset"),
    [
        ("// Größe überprüfen für die Prüfung", "cp1252"),
        ("# José Núñez", "cp1252"),
        ("# Проверка размера файла", "cp1251"),
        ("# Zażółć gęślą jaźń", "cp1250"),
        ("/* ファイルのサイズを確認する */", "cp932"),
        ("// 检查文件大小并输出结果", "gb18030"),
    ],
)
def test_charsets_are_found_by_the_few_lines_that_show_them(text, charset):
    found = read_text((CODE * 100 + text).encode(charset))
    assert found.text == CODE * 100 + text
    assert found.repairs == (f"charset_{charset}",) and found.fault is None


@pytest.mark.parametrize("before", ["", "a", "aa", "aaa"])
@pytest.mark.parametrize(
    ("words", "charset"),
    [
        ("関数 説明 使用 注意 確認 サイズ ファイル 出力 結果 設定 処理 開始 終了 エラー", "cp932"),
        ("関数 説明 使用 注意 確認 サイズ ファイル 出力 結果 設定 処理 開始 終了 エラー", "euc_jp"),
        ("函数 说明 请注意 这个值 不会 被使用 检查 文件 大小 并输出 结果 设置 开始 结束", "gb18030"),
    ],
)
def test_a_text_longer_than_what_is_shown_is_not_cut_inside_a_character(before, words, charset):
    draws = random.Random(0)
    lines = ["// " + "".join(draws.choices(words.split(), k=6)) for _ in range(1000)]
    text = before + "\n".join(lines)
    assert read_text(text.encode(charset))[:2] == (text, (f"charset_{charset}",))


@pytest.mark.parametrize(
    ("data", "text", "repairs", "fault"),
    [
        (b"\xef\xbb\xbfa\r\nb\rc", "a\nb\nc", ("byte_order_mark", "line_ends"), None),
        ("\ufeffaé\n".encode("utf-16-le"), "aé\n", ("charset_utf_16",), None),
        ("\ufeffa".encode("utf-16-be"), "a", ("charset_utf_16",), None),
        ("\ufeffa".encode("utf-32-le"), "a", ("charset_utf_32",), None),
        (b"\xff\xfea", "", (), "unknown_charset"),
        (b"\xff\xfe\0\0\0", "", (), "unknown_charset"),
        (b"GIF89a\0", "", (), "binary"),
        ("\ufeffa\0".encode("utf-16-le"), "", (), "binary"),
        (b"", "", (), None),
    ],
)
def test_bytes_to_text(data, text, repairs, fault):
    found = read_text(data)
    assert found[:2] == (text, repairs) and (found.fault and found.fault[0]) == fault


@given(st.binary(max_size=300))
def test_any_bytes_are_a_text_or_have_a_reason(data):
    found = read_text(data)
    assert "\r" not in found.text and "\0" not in found.text
    assert found.fault is None or not found.text
