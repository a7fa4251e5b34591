"""What is read of a notebook: as nbformat reads it where it is valid, with each loss named, and never its images."""

from __future__ import annotations

import json
import time
from typing import Any

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.documents import Cell
from data_prep.drafts import RowProblem
from data_prep.nbformats import Notebook, notebook_of, read_notebook
from notebook_files import LESSON, book, code, error, old_book, old_code, result, stream, text

PNG = "iVBORw0KGgo" * 300


def read(notebook: Any, most: int | None = 1000) -> Notebook:
    return read_notebook(json.dumps(notebook).encode(), most)


def shown(*outputs: dict[str, Any], most: int | None = 1000) -> tuple[str | None, tuple[str, ...]]:
    """The output of a cell with these outputs, and the repairs."""
    notebook = read(book(code("x", *outputs)), most)
    return notebook.cells[0].output, notebook.repairs


def test_a_notebook_keeps_its_imports_its_outputs_its_tracebacks_and_its_last_text() -> None:
    assert read(LESSON) == Notebook(
        (
            Cell("code", "import math"),
            Cell("text", "# Roots\n\nTake the root of `x < 3`."),
            Cell("code", "math.sqrt(2)", "1.4142135623730951"),
            Cell("text", "And of a negative number:"),
            Cell("code", "math.sqrt(-1)", "Traceback (most recent call last)\nValueError: math domain error"),
            Cell("text", "That is all."),
        ),
        "python",
    )


def test_nbformat_3() -> None:
    notebook = old_book(
        {"cell_type": "heading", "level": 2, "metadata": {}, "source": ["Two\n", "lines"]},
        old_code(["a = 1\n", "a"], {"output_type": "pyout", "prompt_number": 1, "metadata": {}, "text": ["1"]}),
        old_code(["no\n", "ends"], {"output_type": "stream", "stream": "stdout", "text": ["1\n", "2"]}),
        old_code("f()", {"output_type": "pyerr", "ename": "E", "evalue": "no", "traceback": ["\x1b[31mE\x1b[0m", "E: no"]}),
        old_code("plot()", {"output_type": "display_data", "metadata": {}, "png": PNG, "text": ["<matplotlib.figure.Figure at 0x1>"]}),
        old_code("t", {"output_type": "pyout", "prompt_number": 1, "metadata": {}, "latex": ["$x$"], "html": "<i>x</i>"}),
        {"cell_type": "markdown", "metadata": {}, "source": ["one", "two"]},
    )
    assert read(notebook) == Notebook(
        (
            Cell("text", "## Two lines"),
            Cell("code", "a = 1\na", "1"),
            Cell("code", "no\nends", "1\n2"),
            Cell("code", "f()", "E\nE: no"),
            Cell("code", "plot()"),
            Cell("code", "t", "$x$"),
            Cell("text", "one\ntwo"),
        ),
        "python",
        ("heading_cell", "lost_image_output"),
    )


@pytest.mark.parametrize(
    ("outputs", "expected", "repairs"),
    [
        ([], None, ()),
        ([stream(["a\n", "b\n"])], "a\nb", ()),
        ([stream(""), result(plain="")], None, ()),
        ([stream("a"), stream("b\n"), result(plain="3")], "ab\n3", ()),
        ([stream("a"), stream("w", "stderr"), stream("b")], "a\nw\nb", ()),
        ([stream("a\n\n"), result(plain="b")], "a\n\nb", ()),
        ([stream(" 1%\r"), stream(" 2%\r"), stream("done\n")], "done", ()),
        ([result(plain="     x  y\n0    1  2", html="<table>")], "     x  y\n0    1  2", ()),
        ([result(markdown="**b**", latex="$b$")], "**b**", ()),
        ([result(latex="$b$", png=PNG)], "$b$", ()),
        ([result(plain="<Figure size 640x480 with 1 Axes>", png=PNG)], None, ("lost_image_output",)),
        ([result(plain="<Figure size 640x480 with 1 Axes>")], None, ("lost_image_output",)),
        ([result(png=PNG)], None, ("lost_image_output",)),
        ([result(plain="<PIL.Image.Image size=1x1 at 0x1>", png=PNG)], None, ("lost_image_output",)),
        ([result(plain="<IPython.core.display.HTML object>", html="<b>")], None, ("lost_rich_output",)),
        ([result(html="<b>")], None, ("lost_rich_output",)),
        ([result(js="alert(1)")], None, ("lost_rich_output",)),
        ([result(plain="HBox(children=())", widget={"model_id": "1"})], None, ("lost_rich_output",)),
        ([result(plain="<Figure> of speech")], "<Figure> of speech", ()),
        ([result(plain="[<matplotlib.lines.Line2D at 0x1>]", png=PNG)], "[<matplotlib.lines.Line2D at 0x1>]", ()),
        ([result(plain="<__main__.A at 0x1>")], "<__main__.A at 0x1>", ()),
        ([result(plain="<xarray>\nx 1", html="<b>")], "<xarray>\nx 1", ()),
        ([error(name="E", value="")], "E", ()),
        ([stream("before"), error("T", "E: no"), stream("after")], "before\nT\nE: no\nafter", ()),
        ([{"output_type": "future", "text": "x"}, stream("a")], "a", ("unknown_output",)),
    ],
)
def test_outputs_as_text(outputs: list[dict[str, Any]], expected: str | None, repairs: tuple[str, ...]) -> None:
    assert shown(*outputs) == (expected, repairs)


def test_long_output_keeps_its_beginning_and_a_traceback_its_end() -> None:
    assert shown(stream("a" * 11), most=10) == ("a" * 10 + "[...]", ("long_output",))
    assert shown(stream("a" * 10 + "\n\n"), most=10) == ("a" * 10, ())
    assert shown(stream("b" * 11), error("c" * 11, "E: no"), most=10) == ("b" * 10 + "[...]\n[...]" + "c" * 4 + "\nE: no", ("long_output",))
    assert shown(stream("a b" * 5000), most=None) == ("a b" * 5000, ())


@pytest.mark.parametrize(
    ("cell", "expected", "repairs"),
    [
        (text("\n\n# T\n\n<b> # \n\n"), Cell("text", "# T\n\n<b> #"), ()),
        (code("\n    x = 1\n    y"), Cell("code", "    x = 1\n    y"), ()),
        (text("a\r\nb\rc"), Cell("text", "a\nb\nc"), ("line_ends",)),
        ({"cell_type": "raw", "metadata": {}, "source": "title: x"}, Cell("text", "title: x"), ("raw_cell",)),
        ({"cell_type": "heading", "level": 99, "source": "x"}, Cell("text", "###### x"), ("heading_cell",)),
        (text("a", attachments={"a.png": {"image/png": PNG}}), Cell("text", "a"), ("lost_attachment",)),
        (text(f"![a](data:image/png;base64,{PNG}) b"), Cell("text", "![a](data:image/png;base64,[...]) b"), ("lost_inline_data",)),
        (code(f"x = '{PNG}'"), Cell("code", "x = '[...]'"), ("lost_encoded_data",)),
        (code("x = ';base64,'"), Cell("code", "x = ';base64,'"), ()),
        (code("x = '" + "ab " * 500 + "'"), Cell("code", "x = '" + "ab " * 500 + "'"), ()),
        ({"cell_type": "code", "source": "x"}, Cell("code", "x"), ()),
        ({"cell_type": "video", "source": "x"}, None, ("unknown_cell",)),
        ({"cell_type": "code"}, None, ("empty_cell",)),
        (code(" \n", stream("a")), None, ("empty_cell",)),
    ],
)
def test_cells(cell: dict[str, Any], expected: Cell | None, repairs: tuple[str, ...]) -> None:
    notebook = read(book(cell))
    assert notebook.repairs == repairs
    assert notebook.cells == ((expected,) if expected else ())


def test_encoded_data_in_outputs() -> None:
    assert shown(stream("y " + "x" * 5000)) == ("y [...]", ("lost_encoded_data",)), "also where the output would be cut"
    wrapped = "\n".join(["QUJD" * 19] * 20 + ["QUI="])
    assert shown(stream(f"y\n{wrapped}\nz w")) == ("y\n[...]\nz w", ("lost_encoded_data",))
    for before in range(0, 1100, 97):
        assert shown(stream("a " * before + "b" * 1024), most=None)[1] == ("lost_encoded_data",), "wherever it begins"
        assert shown(stream("a " * before + "\n" + ("b" * 60 + "\n") * 18), most=None)[1] == ("lost_encoded_data",)
        assert shown(stream("a " * before + "b" * 1023), most=None)[1] == ()
        assert shown(stream("a " * before + "\n" + ("b" * 60 + "\n") * 16), most=None)[1] == ()
    table = "\n".join(["1.0 " * 19] * 20)
    assert shown(stream(table), most=None) == (table.strip(), ())
    assert shown(stream("x" * 1023), most=None) == ("x" * 1023, ())
    assert shown(stream("y " + "x" * 1024), most=None) == ("y [...]", ("lost_encoded_data",))
    assert shown(result(plain=f"'<img src=data:image/png;base64,{PNG[:100]}>'")) == (
        "'<img src=data:image/png;base64,[...]>'",
        ("lost_inline_data",),
    )


@pytest.mark.parametrize(
    ("metadata", "language"),
    [
        ({"kernelspec": {"name": "ir", "language": "R"}, "language_info": {"name": "python"}}, "R"),
        ({"kernelspec": {"name": "ir"}, "language_info": {"name": "R"}}, "R"),
        ({"kernelspec": {"name": "python3"}}, "python3"),
        ({"kernel_info": {"name": "x", "language": "julia"}}, "julia"),
        ({"kernelspec": "python", "language_info": {"name": " "}}, None),
        ({}, None),
    ],
)
def test_the_language(metadata: dict[str, Any], language: str | None) -> None:
    assert read(book(code("x"), metadata=metadata)).language == language


def test_what_python_writes_is_read_though_it_is_no_json() -> None:
    """Plots hold NaN, which nbformat writes and reads."""
    plotted = {"output_type": "display_data", "data": {"application/vnd.plotly.v1+json": {"y": [float("nan"), float("inf")]}}}
    notebook = read_notebook(json.dumps(book(code("plot()", plotted))).encode())
    assert notebook.cells == (Cell("code", "plot()", None),) and notebook.repairs == ("lost_rich_output",)


@pytest.mark.parametrize(
    ("data", "reason", "fault"),
    [
        (b"{", "invalid_json", True),
        (b'{"nbformat": 4, "cells": [NaN]}', "wrong_type", True),
        (b"<<<<<<< HEAD\n{}", "invalid_json", True),
        ("{'a'}".encode("utf-16"), "invalid_utf8", True),
        (b'{"cells": "\xff"}', "invalid_utf8", True),
        (b"[" * 2000 + b"]" * 2000, "invalid_json", True),
        (b"[]", "wrong_type", True),
        (b"{}", "unsupported_nbformat", False),
        (b'{"nbformat": 2, "worksheets": []}', "unsupported_nbformat", False),
        (b'{"nbformat": 5, "cells": []}', "unsupported_nbformat", False),
        (b'{"nbformat": "4", "cells": []}', "wrong_type", True),
        (b'{"nbformat": true, "cells": []}', "wrong_type", True),
        (b'{"nbformat": 4, "cells": {}}', "wrong_type", True),
        (b'{"nbformat": 3, "worksheets": [1]}', "wrong_type", True),
        (b'{"nbformat": 3, "worksheets": 1}', "wrong_type", True),
        (b'{"nbformat": 4, "cells": [1]}', "wrong_type", True),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": null}]}', "wrong_type", True),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": ["a", 1]}]}', "wrong_type", True),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code", "outputs": {}}]}', "wrong_type", True),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code", "outputs": [1]}]}', "wrong_type", True),
        (b'{"nbformat": 3, "worksheets": [{"cells": [{"cell_type": "heading", "source": "a", "level": "1"}]}]}', "wrong_type", True),
    ],
)
def test_what_is_no_notebook(data: bytes, reason: str, fault: bool) -> None:
    with pytest.raises(RowProblem) as caught:
        read_notebook(data)
    assert (caught.value.reason, caught.value.fault) == (reason, fault)


@pytest.mark.parametrize(
    "output", [{"data": 1}, {"data": {"text/plain": 1}}, {"output_type": "stream", "text": None}, {"output_type": "error", "traceback": 1}]
)
def test_outputs_of_a_wrong_type_name_their_cell(output: dict[str, Any]) -> None:
    with pytest.raises(RowProblem, match="cell 2: .* is of type (int|NoneType)"):
        read(book(text("a"), code("x", {"output_type": "display_data", **output})))


def test_versions_and_metadata_that_are_not_stated() -> None:
    assert read({"cells": [code("x")]}).repairs == ("no_nbformat", "metadata_ignored")
    assert read({"worksheets": [{"cells": [old_code("x")]}], "metadata": []}) == Notebook(
        (Cell("code", "x"),), "python", ("no_nbformat", "metadata_ignored")
    )
    assert read_notebook(b"\xef\xbb\xbf" + json.dumps(LESSON).encode(), 1000).repairs == ("byte_order_mark",)
    assert read(book(code("x"), nbformat_minor=99)).repairs == ()


LINES = st.lists(st.sampled_from(["a", "b c", "  d", "# e", "é", "<f>", ""]), min_size=1, max_size=4)
sources = st.one_of(
    LINES.map("\n".join),
    LINES.map(lambda lines: [f"{line}\n" for line in lines[:-1]] + lines[-1:]),
)
valid_outputs = st.one_of(
    st.builds(stream, sources, st.sampled_from(["stdout", "stderr"])),
    st.builds(lambda plain: result(plain=plain), sources),
    st.builds(lambda lines: error(*lines), LINES),
)
valid_cells = st.one_of(st.builds(text, sources), st.builds(lambda s, o: code(s, *o), sources, st.lists(valid_outputs, max_size=3)))
old_outputs = st.one_of(
    st.builds(lambda t: {"output_type": "stream", "stream": "stdout", "text": t}, sources),
    st.builds(lambda t: {"output_type": "pyout", "prompt_number": 1, "metadata": {}, "text": t}, sources),
    st.builds(lambda t: {"output_type": "pyerr", "ename": "E", "evalue": "", "traceback": t}, LINES),
)
old_cells = st.one_of(
    st.builds(text, sources),
    st.builds(
        lambda s, n: {"cell_type": "heading", "level": n, "metadata": {}, "source": s},
        LINES.map("\n".join).map(str.strip),
        st.integers(1, 6),
    ),
    st.builds(lambda s, o: old_code(s, *o), sources, st.lists(old_outputs, max_size=3)),
)


@settings(deadline=None)  # nbformat reads its schemas when it is first asked
@given(
    st.one_of(
        st.lists(valid_cells, max_size=5).map(lambda cells: book(*cells)),
        st.lists(old_cells, max_size=5).map(lambda cells: old_book(*cells)),
    )
)
def test_a_valid_notebook_is_read_as_nbformat_reads_it(notebook: dict[str, Any]) -> None:
    theirs = nbformat.reads(json.dumps(notebook), as_version=4)
    expected = []
    for cell in theirs.cells:
        source = cell.source.strip("\n").rstrip()
        words = "".join(word for output in cell.get("outputs", ()) for word in their_words(output))
        # Of a heading without words nbformat keeps the signs.
        if source and not (notebook["nbformat"] == 3 and set(source) == {"#"}):
            expected.append(("text" if cell.cell_type == "markdown" else "code", source, words))
    ours = [(cell.kind, cell.source, "".join((cell.output or "").split())) for cell in read(notebook, None).cells]
    assert ours == expected


def their_words(output: Any) -> list[str]:
    if output.output_type == "stream":
        return str(output.text).split()
    if output.output_type == "error":
        return "\n".join(output.traceback).split() or f"{output.ename}: {output.evalue}".removesuffix(": ").split()
    return str(output.data["text/plain"]).split()


@given(st.lists(valid_cells, max_size=5))
def test_no_image_reaches_the_text(cells: list[dict[str, Any]]) -> None:
    pictured = [
        {**cell, "outputs": [*cell["outputs"], result(png=PNG), result(plain="<Figure size>", png=PNG)]} if "outputs" in cell else cell
        for cell in cells
    ]
    plain, with_images = notebook_of(book(*cells)), notebook_of(book(*pictured))
    assert with_images.cells == plain.cells


def test_hostile_texts_take_no_longer_than_their_length() -> None:
    begin = time.process_time()
    for source in ("a" * 1023 + " " * 10, ";base64," * 1000, ";base64," + "A" * 50 + "\n" + "A" * 39, "/" * 1023 + "\\"):
        read(book(text(source * 200), code(source * 200, stream(source * 200))), None)
    assert time.process_time() - begin < 3
