"""Curation of all items: duplicates and which copy is preferred, benchmarks reported, secrets gone from everything."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import fuzz_curate
from data_prep.curate import Curation
from data_prep.detect import Detector
from data_prep.preferred import DuplicateRules, compared_text, duplicate_rules, rank_of
from data_prep.prepare import DECONTAMINATION, prepare
from data_prep.record_redaction import JOINT, RedactedRecord, redacted_record
from data_prep.redact import SecretRules
from starchat.dialogue import Part, Record, Source, Turn, from_row
from starchat.errors import UserError
from tests.made_up_benchmark import write_problems
from tests.repositories import commit, new

KEY = "\n".join(base64.b64encode(random.Random(line).randbytes(48)).decode() for line in range(6))
MAIL, OTHER_MAIL = "grace.hopper@navy.mil", "ada.lovelace@analytical.org"


def program(seed: int, lines: int = 40) -> str:
    """Return a made-up program that resembles no other."""
    rng = random.Random(seed)
    names = [f"name_{rng.randrange(10**6)}" for _ in range(12)]
    return "".join(f"{rng.choice(names)} = {rng.choice(names)}({rng.choice(names)}, {rng.randrange(99)})\n" for _ in range(lines))


def prepared(
    folder: Path, files: dict[str, dict[str, str]], curate: dict[str, Any], workers: int = 1, pieces: int = 8, **keys: Any
) -> dict[str, Any]:
    """Prepare repositories of files, each with its licence and stars, and return the manifest."""
    sources = []
    for name, content in files.items():
        clone = folder / name
        if not clone.exists():
            commit(new(clone), "Begin", {path: text for path, text in content.items() if "." in path})
        known = {"license": content.get("license"), "stars": int(content.get("stars", 0))}
        metadata = {"repository": f"o/{name}", "view": "document", "rules": {"preset": "none"}, "metadata": "path"}
        sources.append({"kind": "source", "path": str(clone), **known, **metadata})
    spec = folder / "spec.yaml"
    spec.write_text(json.dumps({"sources": sources, "curate": curate, "test_fraction": 0, "output": str(folder / "out"), **keys}))
    return prepare(spec, progress=False, workers=workers, pieces_of_a_shard=pieces)


def kept(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a dataset."""
    return list(pq.read_table(folder / "train-00000.parquet").to_pylist())


def dropped(folder: Path, reason: str) -> list[dict[str, Any]]:
    """Return what was dropped for a reason."""
    return list(pq.read_table(folder / "dropped" / f"{reason}.parquet").to_pylist())


def test_of_copies_the_preferred_one_is_kept(tmp_path: Path) -> None:
    """The licence decides before the place in the spec; a removal names its twin and how alike they are."""
    text = program(1)
    files = {
        "first": {"a.py": text, "license": "GPL-3.0-only"},
        "second": {"b.py": text.replace("name_", "name_", 1) + "print(1)\n", "license": "MIT"},
        "third": {"c.py": program(2), "license": "MIT"},
    }
    manifest = prepared(tmp_path, files, {"near_duplicates": {}})
    assert manifest["counts"]["dropped"] == {"near_duplicate": 1}
    rows = kept(tmp_path / "out")
    assert [row["source"]["repository"] for row in rows] == ["o/second", "o/third"]
    (gone,) = dropped(tmp_path / "out", "near_duplicate")
    assert gone["place"].endswith("first/a.py")
    assert gone["detail"].endswith(f"like the record {rows[0]['id']}, which is kept")
    assert 0.9 < float(gone["detail"].split()[0]) < 1
    assert manifest["spec"]["curate"]["near_duplicates"]["threshold"] == 0.7


def test_the_same_content_is_a_duplicate_and_no_chain_takes_what_differs(tmp_path: Path) -> None:
    """Equal records are told from similar ones; the ends of a chain, which do not resemble each other, are both kept."""
    lines = program(3, 60).splitlines(keepends=True)
    chain = ["".join(lines[start : start + 30]) for start in (0, 3, 6, 9, 12)]
    files = {str(number): {"a.py": text} for number, text in enumerate([*chain, chain[0]])}
    manifest = prepared(tmp_path, files, {"near_duplicates": {}})
    assert manifest["counts"]["dropped"]["duplicate"] == 1
    assert kept(tmp_path / "out")[0]["source"]["repository"] == "o/0"
    assert 2 <= len(kept(tmp_path / "out")) < 5
    assert sum(manifest["counts"]["dropped"].values()) + manifest["counts"]["kept"] == manifest["counts"]["read"] == 6


def test_names_in_front_do_not_make_copies_differ() -> None:
    """Records are compared by their code; dialogues by all that is said."""
    one = Record(Source("x"), parts=(Part("<filename>", "a/b/c.py"), Part("", "\nx = 1\n")))
    two = Record(Source("y"), parts=(Part("<filename>", "z.py"), Part("", "\nx = 1\n")))
    assert compared_text(one) == compared_text(two) == "x = 1\n"
    assert compared_text(Record(Source("x"), (Turn("user", "q"), Turn("assistant", "a")))) == ("q", "a")


def test_ranks_follow_the_preferences() -> None:
    """In the order that is stated: licence, stars, date; what is not known comes last, and nothing overflows."""
    sources = [
        Record(Source("x", stars=5), license="MIT"),
        Record(Source("x", stars=3), license="MIT"),
        Record(Source("x"), license="MIT"),
        Record(Source("x", stars=10**12), license="GPL-3.0-only"),
        Record(Source("x", stars=9)),
        Record(Source("x", stars=99), license="LicenseRef-x"),
    ]
    ranks = [rank_of(record, ("license", "stars")) for record in sources]
    assert ranks == sorted(set(ranks))
    dates = ["2026-01-01T00:00:00Z", "2025-06-01", "1999-01-01T00:00:00+02:00", None]
    newest = [rank_of(Record(Source("x", date=date)), ("newest",)) for date in dates]
    oldest = [rank_of(Record(Source("x", date=date)), ("oldest",)) for date in dates]
    assert newest == sorted(set(newest))
    assert oldest[:3] == sorted(oldest[:3], reverse=True)
    assert oldest[3] == max(oldest)
    assert rank_of(Record(Source("x", date="soon", stars=-1)), ("license", "stars", "newest")) < 1 << 62


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"threshold": 2}, r"spec\.threshold: 2"),
        ({"prefer": ["licence"]}, r"spec\.prefer: 'licence'; did you mean 'license'"),
        ({"prefer": ["newest", "oldest"]}, "newest or oldest"),
        ({"treshold": 0.5}, "unknown key 'treshold'"),
    ],
)
def test_faulty_rules_are_refused(mapping: dict[str, Any], message: str) -> None:
    """Before anything is read."""
    with pytest.raises(UserError, match=message):
        duplicate_rules(mapping, "spec")
    assert duplicate_rules({}, "spec") == DuplicateRules()


def test_benchmarks_are_taken_out_and_reported(tmp_path: Path) -> None:
    """A problem's solution with other names goes, with the problem named; the report counts it, and what is near."""
    problems = Path(write_problems(tmp_path))
    row = json.loads(problems.read_text(encoding="utf-8").splitlines()[0])
    solution = row["prompt"] + row["canonical_solution"]
    steps = {"decontaminate": {"benchmarks": [{"name": "posts", "problems": str(problems)}]}}
    manifest = prepared(tmp_path, {"one": {"a.py": solution, "b.py": program(5)}}, steps)
    assert manifest["counts"]["dropped"] == {"contaminated": 1}
    (gone,) = dropped(tmp_path / "out", "contaminated")
    assert row["task_id"] in gone["detail"]
    report = json.loads((tmp_path / "out" / DECONTAMINATION).read_text(encoding="utf-8"))
    assert report["benchmarks"]["posts"]["contaminated"][row["task_id"]] == 1
    assert str(problems) in [entry.get("path") for entry in manifest["inputs"]]


def test_no_secret_is_left_anywhere(tmp_path: Path) -> None:
    """Neither in what is kept nor in what was dropped, be it by a reader, a filter or as a duplicate; the repairs tell the kinds."""
    text = f"# Written by {MAIL}\n" + program(6)
    files = {"one": {"a.py": text, "b.go": f"// {MAIL}\npackage b\n", "c.py": ""}, "two": {"a.py": text + "print(2)\n"}}
    manifest = prepared(tmp_path, files, {"filters": {"languages": ["Python"]}, "redact": {}, "near_duplicates": {}})
    assert {"other_language", "near_duplicate", "empty_file"} <= set(manifest["counts"]["dropped"])
    assert manifest["counts"]["repaired"] == {"redacted_email": 1}
    for path in sorted((tmp_path / "out").rglob("*.parquet")):
        assert MAIL not in json.dumps(pq.read_table(path).to_pylist())
    row = kept(tmp_path / "out")[0]
    assert "user1@example.com" in "".join(part["text"] for part in row["document"])
    assert row["placeholders"] == ["user1@example.com"]


def test_one_secret_has_one_surrogate_in_all_texts_of_a_record() -> None:
    """Turns speak of the same person, and not of another one."""
    turns = (Turn("user", f"Mail {OTHER_MAIL}"), Turn("assistant", f"Not {MAIL}?"), Turn("user", f"{OTHER_MAIL}!"), Turn("assistant", "ok"))
    found = redacted_record(Record(Source("x"), turns), SecretRules())
    assert isinstance(found, RedactedRecord)
    assert [turn.content for turn in found.record.turns] == ["Mail user1@example.com", "Not user2@example.com?", "user1@example.com!", "ok"]
    assert (found.repairs, found.placeholders) == (("redacted_email",), ("user1@example.com", "user2@example.com"))


def test_placeholder_tokens_are_parts_of_documents() -> None:
    """StarCoder2's placeholders become markers, which no text can forge; everything around them is as it was."""
    record = Record(Source("x"), parts=(Part("<file_sep>", "a.py"), Part("", f"\nm = '{MAIL}'\nn = '<EMAIL>'\n")))
    found = redacted_record(record, SecretRules(style="tokens"))
    assert isinstance(found, RedactedRecord)
    assert found.record.parts == (Part("<file_sep>", "a.py"), Part("", "\nm = '"), Part("<EMAIL>", "'\nn = '<EMAIL>'\n"))
    assert found.placeholders == ()
    dialogue = Record(Source("x"), (Turn("user", "q"), Turn("assistant", MAIL)))
    found = redacted_record(dialogue, SecretRules(style="tokens"))
    assert isinstance(found, RedactedRecord)
    assert found.record.turns[1].content == "user1@example.com"


def test_kinds_may_be_dropped_instead() -> None:
    """A record with a kind of `drop` is taken out whole."""
    key = f"-----BEGIN RSA PRIVATE KEY-----\n{KEY}\n-----END RSA PRIVATE KEY-----"
    record = Record(Source("x"), (Turn("user", "q"), Turn("assistant", key)))
    found = redacted_record(record, SecretRules(drop=("private_key",)))
    assert found == ("secret_private_key", f"at character 5 of {len(key) + 4 + len(JOINT) + 1}")


def test_a_find_across_texts_is_found_in_each() -> None:
    """A key that begins in one turn and ends in another is no key of both; what is left has no secret by itself."""
    turns = (Turn("user", f"-----BEGIN RSA PRIVATE KEY-----\n{KEY}"), Turn("assistant", f"{KEY}\n-----END RSA PRIVATE KEY-----"))
    found = redacted_record(Record(Source("x"), turns), SecretRules())
    assert isinstance(found, RedactedRecord)
    assert len(found.record.turns) == 2
    assert all(JOINT not in turn.content for turn in found.record.turns)
    assert all(Detector().find(turn.content) == [] for turn in found.record.turns)


def test_same_bytes_with_any_number_of_workers_and_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps at once, in shards of one size or another, by one process or three."""
    monkeypatch.setattr("data_prep.source_code.TASK_FILES", 1)
    problems = Path(write_problems(tmp_path))
    base = [program(number) for number in range(8)]
    files = {str(n): {f"{m}.py": base[(n + m) % 8] + f"# {n} {MAIL}\n" for m in range(4)} for n in range(5)}
    steps = {
        "filters": {"preset": "starcoder2"},
        "decontaminate": {"benchmarks": [{"name": "posts", "problems": str(problems)}]},
        "redact": {},
        "near_duplicates": {},
    }
    made = []
    for workers, size in ((1, 2000), (1, 3), (3, 4)):
        folder = tmp_path / f"out-{workers}-{size}"
        prepared(tmp_path, files, steps, workers, pieces=size, output=str(folder))
        made.append({path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.suffix in (".parquet", ".json", ".jsonl")})
        made[-1].pop("manifest.json")
    assert made[0] == made[1] == made[2]
    assert {"near_duplicate.parquet", DECONTAMINATION} <= set(made[0])
    assert all(from_row(row).parts for row in kept(tmp_path / "out-1-3"))


@pytest.fixture(scope="module")
def curation(tmp_path_factory: pytest.TempPathFactory) -> Curation:
    """All steps that look at records one by one."""
    return fuzz_curate.opened(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("number", range(60))
def test_damaged_records_are_kept_or_dropped(number: int, curation: Curation, tmp_path: Path) -> None:
    """Some of the mutants that ``python tests/fuzz_curate.py`` makes by the thousand."""
    fuzz_curate.check(fuzz_curate.mutant(random.Random(f"0:{number}"), fuzz_curate.SECRETS), curation, tmp_path)
