"""Clean dialogues of every shape, and the faults that can be planted in their rows: each names the check that must find it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np

from starchat.check import examine
from starchat.dialogue import Record, Source, ToolCall, Turn
from starchat.encode import Row, SetAside, encode_dialogues
from starchat.recipe import Recipe

MAX_LENGTH = 120
TOOLS = '[{"type": "function", "function": {"name": "add"}}]'
ADD = ToolCall("add", '{"a": 1}')
LONG = tuple(turn for n in range(16) for turn in (Turn("user", f"q{n}?"), Turn("assistant", f"\n a{n}")))
DIALOGUES = (
    (Turn("user", "hi"), Turn("assistant", "\n  hello")),
    (Turn("system", "be brief"), Turn("user", "why?"), Turn("assistant", "so"), Turn("user", "and?"), Turn("assistant", "<|end|> it is")),
    (Turn("user", "2+2"), Turn("assistant", "", tool_calls=(ADD,)), Turn("tool", "4"), Turn("assistant", "four")),
    (Turn("system", "long"), *LONG),
    (Turn("user", "one"), Turn("assistant", "no", train=False), Turn("user", "again"), Turn("assistant", "yes")),
    (Turn("user", "silent"), Turn("assistant", "no", train=False)),
    (Turn("user", "far too long"), Turn("assistant", "word " * 60), Turn("user", "short"), Turn("assistant", "ok")),
)
RECORDS = (
    *(Record(Source(f"a.jsonl:{n}"), turns=turns, tools=TOOLS if n == 3 else None) for n, turns in enumerate(DIALOGUES, 1)),
    Record(Source("b.jsonl:1"), turns=(Turn("user", "test?"), Turn("assistant", "tested")), split="test"),
)
RECIPE = Recipe(model="base", dataset="data", output="run", max_length_tokens=MAX_LENGTH, max_set_aside_fraction=0.9)


@dataclasses.dataclass
class Case:
    """What `examine` is given: tests change one thing and look at what is found."""

    tokens: object
    records: list
    rows: list
    set_aside: list
    recipe: Recipe = RECIPE
    model_rows: int = 100_000

    def report(self):
        split = {record.id: record.split for record in self.records}
        rows = {name: [row for row in self.rows if split.get(row.id, "train") == name] for name in ("train", "test")}
        return examine(self.recipe, self.tokens, self.records, rows, self.set_aside, self.model_rows)

    def change(self, number, **changes):
        self.rows[number] = dataclasses.replace(self.rows[number], **changes)

    def put(self, number, at, insert=(), drop=0):
        """Replace `drop` tokens of a row at `at` by untrained ones."""
        row = self.rows[number]
        ids = np.concatenate([row.ids[:at], np.array(insert, dtype=np.int32), row.ids[at + drop :]])
        trained = np.concatenate([row.trained[:at], np.zeros(len(insert), dtype=np.bool_), row.trained[at + drop :]])
        self.change(number, ids=ids.astype(np.int32), trained=trained)

    def train(self, number, at, value=True):
        trained = self.rows[number].trained.copy()
        trained[at] = value
        self.change(number, trained=trained)

    def last_trained(self, number):
        return int(np.flatnonzero(self.rows[number].trained)[-1])

    def of_record(self, number):
        """Return the numbers of the rows of a record."""
        return [n for n, row in enumerate(self.rows) if row.id == self.records[number].id]


def make(tokens, records=RECORDS, recipe=RECIPE):
    items = list(encode_dialogues(records, tokens, recipe.max_length_tokens))
    rows = [item for item in items if isinstance(item, Row)]
    return Case(tokens, list(records), rows, [item for item in items if isinstance(item, SetAside)], recipe)


def plant_user_trained(case):
    case.train(0, 1)
    return "user_and_system_untrained"


def plant_system_trained(case):
    case.train(case.of_record(1)[0], 1)
    return "user_and_system_untrained"


def plant_header_trained(case):
    case.train(0, int(np.flatnonzero(case.rows[0].trained)[0]) - 1)
    return "user_and_system_untrained"


def plant_weight_zero_trained(case):
    (row,) = case.of_record(4)
    span = case.rows[row].spans[1]
    case.train(row, slice(span.content, span.stop))
    return "trained_tokens_are_the_answers"


def plant_end_token_untrained(case):
    case.train(1, case.last_trained(1), False)
    return "every_end_token_is_trained"


def plant_end_token_missing_after_split(case):
    first = case.of_record(3)[0]
    case.put(first, len(case.rows[first].ids) - 1, drop=1)
    return "every_end_token_is_trained"


def plant_answer_cut(case):
    last = case.last_trained(0)
    case.put(0, last - 1, drop=1)
    return "trained_tokens_are_the_answers"


def plant_answer_of_another_record(case):
    case.change(0, id=case.records[4].id)
    return "trained_tokens_are_the_answers"


def plant_doubled_beginning(case):
    case.put(0, 0, [0])
    return "one_beginning_token"


def plant_over_long_row(case):
    row = case.rows[0]
    case.change(0, ids=np.tile(row.ids, 20), trained=np.tile(row.trained, 20))
    return "lengths"


def plant_much_set_aside(case):
    case.recipe = dataclasses.replace(case.recipe, max_set_aside_fraction=0.01)
    return "lengths"


def plant_end_token_in_content(case):
    case.put(0, 1, [case.tokens.control["<|end|>"]])
    return "no_forged_control_tokens"


def plant_turn_in_content(case):
    case.put(0, 1, [case.tokens.control["<|assistant|>"]])
    return "no_forged_control_tokens"


def plant_base_control_token_in_content(case):
    case.put(0, 1, [case.tokens.control["<fim_middle>"]])
    return "no_forged_control_tokens"


def plant_dead_row(case):
    case.train(0, slice(None), False)
    return "dead_rows"


def plant_first_token_trained(case):
    case.train(0, 0)
    return "first_tokens_untrained"


def plant_turn_trained_twice(case):
    second = case.of_record(3)[1]
    span = next(span for span in case.rows[second].spans if span.role == "assistant" and not span.trained)
    case.train(second, slice(span.content, span.stop))
    return "trained_tokens_are_the_answers"


def plant_prompt_not_a_prefix(case):
    """The user's text as another tokenizer would cut it: same text, other tokens."""
    row, tokens = case.rows[1], case.tokens
    at = row.spans[0].content
    size = row.spans[0].stop - 1 - at
    letters = [i for letter in "be brief" for i in tokens.encode_texts([letter])[0]]
    assert letters != row.ids[at : at + size].tolist()
    case.put(1, at, letters, drop=size)
    return "prompt_is_a_prefix"


def plant_other_encoding_of_an_answer(case):
    (row,) = case.of_record(2)
    at, size = case.rows[row].spans[-1].content, len(case.tokens.encode_texts(["four"])[0])
    letters = [i for letter in "four" for i in case.tokens.encode_texts([letter])[0]]
    trained = np.concatenate([case.rows[row].trained[:at], np.ones(len(letters) + 1, dtype=np.bool_)])
    assert size < len(letters)
    case.change(row, ids=np.array([*case.rows[row].ids[:at], *letters, case.rows[row].ids[-1]], dtype=np.int32), trained=trained)
    return "jinja_gives_the_same_ids"


def plant_jinja_that_trims(case):
    """A template that strips content, as many published ones do."""
    template = dataclasses.replace(case.tokens.template)
    case.tokens = dataclasses.replace(case.tokens, template=template, whole=trimmed(case.tokens.whole))
    return "jinja_gives_the_same_ids"


def trimmed(whole):
    """Return a tokenizer whose control tokens swallow the white space behind them."""
    from tokenizers import Tokenizer

    spec = json.loads(whole.to_str())
    spec["added_tokens"] = [{**token, "rstrip": True} for token in spec["added_tokens"]]
    return Tokenizer.from_str(json.dumps(spec))


def plant_row_lost(case):
    del case.rows[0]
    return "conservation"


def plant_piece_lost(case):
    del case.rows[case.of_record(3)[-1]]
    return "conservation"


def plant_set_aside_forgotten(case):
    case.set_aside = [item for item in case.set_aside if item.reason != "over_long"]
    return "conservation"


def plant_foreign_row(case):
    case.change(0, id="0" * 32)
    return "conservation"


def plant_duplicate_rows(case):
    case.records.append(dataclasses.replace(case.records[0], source=Source("c.jsonl:1")))
    case.rows.append(case.rows[0])
    return "duplicate_rows"


def plant_duplicate_with_another_id(case):
    turns = tuple(dataclasses.replace(turn, name="x") for turn in case.records[2].turns)
    record = dataclasses.replace(case.records[2], turns=turns)
    case.records.append(record)
    (row,) = case.of_record(2)
    case.rows.append(dataclasses.replace(case.rows[row], id=record.id))
    return "duplicate_rows"


def plant_test_row_in_train(case):
    turns = tuple(dataclasses.replace(turn, name="x") for turn in case.records[0].turns)
    record = dataclasses.replace(case.records[0], turns=turns, split="test")
    case.records.append(record)
    case.rows.append(dataclasses.replace(case.rows[0], id=record.id))
    return "train_test_disjoint"


def plant_end_token_is_padding(case):
    case.tokens = dataclasses.replace(case.tokens, pad="<|end|>")
    return "end_token_stops"


def plant_new_token_within_the_vocabulary(case):
    case.tokens = dataclasses.replace(case.tokens, new=("<fim_pad>", *case.tokens.new))
    return "new_tokens_counted"


def plant_id_above_the_vocabulary(case):
    case.model_rows = 0
    case.put(0, 1, [case.tokens.size])
    return "ids_in_vocabulary"


def plant_negative_id(case):
    case.put(0, 1, [-1])
    return "ids_in_vocabulary"


def plant_empty_answer(case):
    record = Record(Source("c.jsonl:1"), turns=(Turn("user", "say nothing"), Turn("assistant", "")))
    case.records.append(record)
    case.rows += encode_dialogues([record], case.tokens, MAX_LENGTH)
    return "no_empty_answers"


def add(case, *records):
    """Add records with their rows."""
    case.records += records
    case.rows += [item for item in encode_dialogues(records, case.tokens, MAX_LENGTH) if isinstance(item, Row)]


def chat(number, question, answer, split="train"):
    return Record(Source(f"d.jsonl:{number}"), turns=(Turn("user", question), Turn("assistant", answer)), split=split)


def plant_tiny_answers_to_long_questions(case):
    add(case, *(chat(n, f"{n}" + "why? " * 12, "") for n in range(200)))
    case.rows = case.rows[-200:]
    for n, row in enumerate(case.rows):
        case.change(n, ids=np.tile(row.ids, 10), trained=np.concatenate([row.trained, np.zeros(9 * len(row.ids), dtype=np.bool_)]))
    return "trained_share"


def plant_one_answer_to_everything(case):
    add(case, *(chat(n, f"question {n}?", "It depends.") for n in range(40)))
    return "answers_differ"


def plant_answers_cut_within_code(case):
    add(case, *(chat(n, f"code {n}?", f"So:\n```python\nprint({n}") for n in range(3)))
    return "answers_close_their_fences"


def plant_endless_run(case):
    row = case.rows[0]
    at = case.last_trained(0)
    (letter,) = case.tokens.encode_texts(["a"])[0]
    ids = np.concatenate([row.ids[:at], np.full(80, letter, dtype=np.int32), row.ids[at:]])
    case.change(0, ids=ids, trained=np.concatenate([row.trained[:at], np.ones(80, dtype=np.bool_), row.trained[at:]]))
    return "no_endless_runs"


def plant_one_record_above_all(case):
    add(case, *(chat(n, f"what is {n}?", f"{n}") for n in range(20)))
    (row,) = case.of_record(0)
    case.rows += [case.rows[row]] * 60
    return "no_record_dominates"


def plant_test_question_that_is_trained(case):
    add(case, chat(1, "HI  ", "hello there", split="test"))
    return "questions_of_the_test_unseen"


def plant_question_that_the_tokenizer_changes(case):
    case.tokens = dataclasses.replace(case.tokens, whole=lowered(case.tokens.whole))
    add(case, *(chat(n, f"Why {n}?", "so") for n in range(8)))
    return "texts_survive_the_tokenizer"


def lowered(whole):
    """Return a tokenizer that knows no capitals."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps({**json.loads(whole.to_str()), "normalizer": {"type": "Lowercase"}}))


def plant_question_cut_from_its_row(case):
    case.put(0, 1, drop=1)
    return "texts_survive_the_tokenizer"


def plant_row_that_depends_on_its_neighbours(case):
    case.put(0, 1, case.rows[1].ids[1:2].tolist())
    return "rows_are_encoded_alone"


PLANTS = [value for name, value in sorted(globals().items()) if name.startswith("plant_")]
