"""Mutated records for decontamination: whatever a text holds, matching neither fails nor depends on the engine.

python tests/fuzz_decontaminate.py --count 10000 --seed 0
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from data_prep.decontaminate import Matcher
from data_prep.matched_texts import texts_and_python
from made_up_benchmark import PROMPT, SECOND_PROMPT, SECOND_SOLUTION, SOLUTION, TESTS, posts_matcher, renamed
from mutate import HOSTILE_TEXTS, mutated_bytes, mutated_text
from starchat.dialogue import Part, Record, Source, Turn

PIECES = (PROMPT, SOLUTION, TESTS, SECOND_PROMPT + SECOND_SOLUTION, PROMPT + SOLUTION, renamed(PROMPT + SOLUTION))
ODD = (
    *("'''", '"""', "\\", "#", "\r", "\f", "\0", "\u2028", "\ud800", "漢", "\U0001f600", "é"),
    *("def f(", "(" * 300, "    def g():\n", "0x", "1.", "->"),
)


def mutant(rng: random.Random) -> str:
    """Return a text that may hold pieces of problems, damaged in some way."""
    pieces = [rng.choice(PIECES) for _ in range(rng.randint(0, 3))]
    pieces += [rng.choice(HOSTILE_TEXTS) for _ in range(rng.randint(0, 2))]
    rng.shuffle(pieces)
    text = "\n".join(pieces)
    for _ in range(rng.randint(0, 4)):
        act, place = rng.randrange(5), rng.randint(0, len(text))
        if act == 0:
            text = mutated_text(text, rng)
        elif act == 1:
            text = mutated_bytes(text.encode("utf-8", "surrogatepass"), rng).decode(
                "utf-8", rng.choice(["replace", "ignore", "backslashreplace"])
            )
        elif act == 2:
            text = text[:place] + rng.choice(ODD) * rng.randint(1, 3) + text[place:]
        elif act == 3:
            text = text[place:] + text[: rng.randint(0, len(text))]
        else:
            text = text.replace(rng.choice(["    ", "\n", "best", " "]), rng.choice(["\t", "\r\n", "x", "  ", "\u3000"]))
    return text


def outcome_of(matcher: Matcher, rng: random.Random) -> str:
    """Return what became of a mutant; raise where a law does not hold."""
    text = mutant(rng)
    turns = (Turn("user", text), Turn("assistant", f"```python\n{text}\n```"))
    record = Record(Source("fuzz"), turns=turns) if rng.random() < 0.5 else Record(Source("fuzz"), parts=(Part("<file_sep>", text),))
    whole, python = texts_and_python(record)
    matches = matcher.match(whole, python)
    assert matches == matcher.match(whole, python, "numpy"), "both engines find the same"
    for match in matches:
        assert 0 < match.share <= 1 and match.item in ("Posts/0", "Posts/1"), match
        match.detail().encode("utf-8")
    padded = matcher.match(f"{whole}\nand some more words", python)
    before = {(match.item, match.field, match.matcher) for match in matches if match.contaminated and match.matcher == "verbatim"}
    assert before <= {(match.item, match.field, match.matcher) for match in padded if match.contaminated}, "more text hides nothing"
    return "contaminated" if any(match.contaminated for match in matches) else "near" if matches else "nothing"


def main() -> int:
    """Run the mutants and print what became of them."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--count", type=int, default=10_000)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        matcher = posts_matcher(Path(folder))
    outcomes: collections.Counter[str] = collections.Counter()
    failures, begin = 0, time.monotonic()
    for number in range(options.count):
        try:
            outcomes[outcome_of(matcher, random.Random(f"{options.seed}:{number}"))] += 1
        except Exception:  # noqa: BLE001  # any escape at all is the finding
            failures += 1
            print(f"--- mutant {number} of seed {options.seed}", traceback.format_exc(), sep="\n", file=sys.stderr)
    took_s = time.monotonic() - begin
    print(f"decontaminate: {options.count:,} mutants, seed {options.seed}, {failures} failures, {took_s:.0f} s; {dict(outcomes)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
