from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from starchat.conversation import Conversation, answer, ask, edit, fit, retry, undo
from starchat.dialogue import Turn
from starchat.encode import encode_prompt
from starchat.errors import UserError
from starchat.generate import Assistant, Sampling, _text, _TextStream, load_assistant
from starchat.sampling import choose
from starchat.template import find_template
from starchat.tokens import Tokens, load_tokens, save_tokens

GREEDY = Sampling(max_new_tokens=16, temperature=0)
SAMPLED = Sampling(max_new_tokens=16, temperature=1.0, top_p=0.9, top_k=40, repetition_penalty=1.2, seed=5)


@pytest.fixture(scope="module")
def assistant(tiny_model: Path) -> Assistant:
    return load_assistant(str(tiny_model))


@pytest.fixture(scope="module")
def tokens(tiny_model: Path) -> Tokens:
    return load_tokens(tiny_model, find_template("starchat"))


def say(*texts: str) -> tuple[Turn, ...]:
    return tuple(Turn("assistant" if n % 2 else "user", text) for n, text in enumerate(texts))


def force(assistant: Assistant, monkeypatch: pytest.MonkeyPatch, ids: list[int]) -> None:
    """Make the model's next ids be `ids`, by adding to its real logits."""
    forward, step = assistant._forward, iter(ids)

    def forced(*args: object) -> torch.Tensor:
        logits = forward(*args).clone()  # type: ignore[arg-type]
        logits[:, next(step)] += 1e4
        return logits

    monkeypatch.setattr(assistant, "_forward", forced)


def test_decode_loop_equals_a_model_without_cache(assistant: Assistant) -> None:
    turns = say("Why?")
    ids = encode_prompt(turns, assistant.tokens)
    for expected in assistant.reply(turns, GREEDY).ids:
        with torch.inference_mode():
            logits = assistant.model(torch.tensor([ids])).logits[0, -1, : assistant.tokens.size]
        assert int(logits.argmax()) == expected
        ids.append(expected)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_batch_equals_single(assistant: Assistant, sampling: Sampling) -> None:
    dialogues = [say("x" * n) for n in (1, 40, 7, 300, 2, 19)] * 3
    batch = assistant.reply_batch(dialogues, sampling)
    for turns, reply in zip(dialogues, batch, strict=True):
        single = assistant.reply(turns, sampling)
        assert (reply.ids, reply.text, reply.finish_reason, reply.prompt_tokens) == (
            single.ids, single.text, single.finish_reason, single.prompt_tokens,
        )  # fmt: skip


def test_rows_that_end_early_do_not_change_the_others(assistant: Assistant) -> None:
    long = say("y" * 1000)  # leaves little room in the context; the other row goes on beyond it
    room = assistant.context_tokens - assistant.count_tokens(long)
    many = Sampling(max_new_tokens=room + 8, temperature=0)
    first, second = assistant.reply_batch([long, say("hello")], many)
    assert first.finish_reason == "length"
    assert len(first.ids) == room
    assert second.ids == assistant.reply(say("hello"), many).ids


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_stream_equals_reply(assistant: Assistant, sampling: Sampling) -> None:
    chunks = list(assistant.stream(say("Why?"), sampling))
    reply = assistant.reply(say("Why?"), sampling)
    assert "".join(chunk.text for chunk in chunks) == reply.text
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason == reply.finish_reason == ("length" if len(reply.ids) == 16 else "stop")
    assert chunks[-1].tokens == len(reply.ids)
    assert chunks[-1].prompt_tokens == reply.prompt_tokens == assistant.count_tokens(say("Why?"))
    assert chunks[-1].tokens_per_s > 0


@pytest.mark.parametrize("end", ["<|end|>", "<|endoftext|>"])
def test_stops_at_either_end_token_and_hides_control_tokens(assistant: Assistant, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    control = assistant.tokens.control
    word = assistant.tokens.encode_texts(["ab"])[0]
    force(assistant, monkeypatch, [*word, control["<|user|>"], control["<fim_middle>"], *word, control[end], *word])
    chunks = list(assistant.stream(say("Why?"), GREEDY))
    assert "".join(chunk.text for chunk in chunks) == "abab"
    assert chunks[-1].finish_reason == "stop"
    assert chunks[-1].tokens == 2 * len(word) + 3


def test_text_that_spells_a_control_token_stays_text(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    force(assistant, monkeypatch, assistant.tokens.encode_texts(["a<|end|>b"])[0] + [assistant.tokens.control["<|end|>"]])
    assert assistant.reply(say("Why?"), GREEDY).text == "a<|end|>b"


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_pieces_joined_are_the_text_and_none_ends_in_half_a_character(tokens: Tokens, data: st.DataObject) -> None:
    some = st.lists(st.integers(0, tokens.size - 1), max_size=12)
    words = st.text(max_size=6).map(lambda text: tokens.encode_texts([text])[0])
    ids = [i for part in data.draw(st.lists(st.one_of(some, words), max_size=6)) for i in part]
    stream = _TextStream(tokens)
    pieces = [stream.push(i) for i in ids]
    assert "".join([*pieces, stream.flush()]) == _text(ids, tokens)


@given(text=st.text(min_size=1, max_size=20))
def test_valid_text_never_shows_a_replacement_character(tokens: Tokens, text: str) -> None:
    stream = _TextStream(tokens)
    pieces = [stream.push(i) for i in tokens.encode_texts([text])[0]]
    assert "".join(pieces) == text
    assert stream.flush() == ""


def test_stop_event_ends_the_stream(assistant: Assistant) -> None:
    stop = threading.Event()
    chunks = []
    for chunk in assistant.stream(say("Why?"), Sampling(max_new_tokens=500, temperature=0), stop):
        chunks.append(chunk)
        stop.set()
    assert len(chunks) == 2
    assert chunks[-1].finish_reason == "cancelled"
    assert chunks[-1].tokens < 10


def test_seed_repeats_and_no_seed_varies(assistant: Assistant) -> None:
    hot = Sampling(max_new_tokens=24, temperature=1.5, top_p=1.0, top_k=None)
    seeded = Sampling(max_new_tokens=24, temperature=1.5, top_p=1.0, top_k=None, seed=1)
    assert assistant.reply(say("Why?"), seeded).ids == assistant.reply(say("Why?"), seeded).ids
    assert len({assistant.reply(say("Why?"), hot).ids for _ in range(4)}) == 4


def test_threads_share_a_model(assistant: Assistant) -> None:
    expected = {n: assistant.reply(say("x" * n), GREEDY).ids for n in (3, 50, 200)}
    got: dict[int, tuple[int, ...]] = {}
    threads = [threading.Thread(target=lambda n=n: got.update({n: assistant.reply(say("x" * n), GREEDY).ids})) for n in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == expected


def test_sampling_filters() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, -4.0]])
    none = torch.zeros(1, 4, dtype=torch.bool)

    def drawn(sampling: Sampling, seen: torch.Tensor = none) -> set[int]:
        generator = torch.Generator().manual_seed(0)
        return {choose(logits, seen, sampling, [generator])[0] for _ in range(300)}

    assert drawn(Sampling(temperature=1, top_p=1, top_k=2)) == {0, 1}
    assert drawn(Sampling(temperature=1, top_p=0.5, top_k=None)) == {0}
    assert drawn(Sampling(temperature=1, top_p=0.7, top_k=None)) == {0, 1}  # 0.665 alone is below 0.7
    assert drawn(Sampling(temperature=5, top_p=1, top_k=None)) == {0, 1, 2, 3}
    assert drawn(Sampling(temperature=1e-40, top_p=1, top_k=None)) == {0}
    seen = torch.tensor([[True, False, False, True]])
    assert choose(logits, seen, Sampling(temperature=0, repetition_penalty=2.0), []) == [1]


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_new_tokens", 0), ("temperature", -0.1), ("temperature", float("nan")), ("top_p", 0.0), ("top_p", 1.1), ("top_k", 0),
     ("repetition_penalty", 0.0), ("seed", -1)],
)  # fmt: skip
def test_bad_sampling_names_the_field(field: str, value: float) -> None:
    with pytest.raises(UserError, match=f"^{field}: .*expected"):
        Sampling(**{field: value})  # type: ignore[arg-type]


def test_prompt_longer_than_the_context(assistant: Assistant) -> None:
    for call in (assistant.reply, assistant.stream):
        with pytest.raises(UserError, match=r"prompt: 5,\d+ tokens; the context of .* is 1,024 tokens; shorten"):
            call(say("12345" * 1000), GREEDY)


def test_half_a_surrogate_pair_is_one_line(assistant: Assistant) -> None:
    with pytest.raises(UserError, match=r"turn 0: holds U\+D83D"):
        assistant.reply(say("\ud83d"), GREEDY)


def test_fit_drops_the_oldest_exchanges_and_says_so(assistant: Assistant) -> None:
    turns = (Turn("system", "Be brief."), *say(*(c * 240 for c in "abcde")))
    fitted = assistant.fit(turns, Sampling(max_new_tokens=2000))
    assert fitted.dropped == 1
    assert fitted.turns == (turns[0], *turns[3:])
    assert fitted.tokens == assistant.count_tokens(fitted.turns) <= 1024 - 256
    assert assistant.fit(turns[:2], GREEDY).dropped == 0
    with pytest.raises(UserError, match=r"message: .* tokens with the system prompt; the model's context is 1,024 tokens"):
        assistant.fit((Turn("system", "s" * 1000), Turn("user", "u" * 2000)), GREEDY)


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=9), system=st.booleans(), reserve=st.integers(0, 40))
def test_fit_keeps_system_and_the_last_message(sizes: list[int], system: bool, reserve: int) -> None:
    turns = (*((Turn("system", "s"),) if system else ()), *say(*("x" * n for n in sizes)))

    def length(kept: object) -> int:
        return sum(len(turn.content) for turn in kept)  # type: ignore[attr-defined]

    try:
        fitted = fit(turns, reserve, 60, length)
    except UserError:
        return
    assert fitted.turns[-1] == turns[-1]
    assert fitted.turns[0] == turns[0] or not system
    assert fitted.tokens == length(fitted.turns) < 60
    users = sum(turn.role == "user" for turn in turns)
    assert sum(turn.role == "user" for turn in fitted.turns) == users - fitted.dropped
    assert fitted.tokens + reserve <= 60 or fitted.dropped == users - 1


def test_conversation_steps() -> None:
    talk = answer(ask(Conversation("sys"), "one"), "1")
    longer = answer(ask(talk, "two"), "2")
    assert [turn.content for turn in longer.prompt] == ["sys", "one", "1", "two", "2"]
    assert [turn.content for turn in retry(longer).turns] == ["one", "1", "two"]
    assert undo(longer) == (talk, "two")
    assert [turn.content for turn in edit(longer, "uno", 0).turns] == ["uno"]
    assert answer(ask(talk, "x"), "") == ask(talk, "x")
    for step in (retry, undo, lambda t: edit(t, "x")):
        with pytest.raises(UserError, match="conversation: empty"):
            step(Conversation())
    with pytest.raises(UserError, match="turn 1: not one of yours"):
        edit(longer, "x", 1)


def test_template_is_found_or_asked_for(tiny_model: Path, tiny_base: Path, tmp_path: Path) -> None:
    assert load_assistant(str(tiny_model)).template.name == "starchat"
    assert load_assistant(str(tiny_base)).template.name == "native"
    with pytest.raises(UserError, match=r"has no <\|im_start\|>, <\|im_end\|>, which template 'chatml' needs"):
        load_assistant(str(tiny_base), "chatml")
    foreign = tmp_path / "foreign"
    shutil.copytree(tiny_model, foreign)
    (foreign / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", encoding="utf-8")
    with pytest.raises(UserError, match="a chat template that is not one of ours; pass --template"):
        load_assistant(str(foreign))
    assert load_assistant(str(foreign), "starchat").template.name == "starchat"


def test_exported_chatml_is_recognised(tiny_base: Path, tmp_path: Path) -> None:
    from starchat.generate import detect_template

    save_tokens(load_tokens(tiny_base, find_template("chatml")), tmp_path, max_length=64)
    assert detect_template(tmp_path) == "chatml"


def test_card_comes_without_its_head(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "group" / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# My model\n", encoding="utf-8")
    assistant = load_assistant(str(folder))
    assert assistant.card == "# My model"
    assert assistant.name == "group/model"


def test_missing_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load_assistant(str(tmp_path / "nothing"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt_bigcode"}), encoding="utf-8")
    with pytest.raises(UserError, match="has no tokenizer"):
        load_assistant(str(tmp_path))


def test_context_of_a_model_without_one(assistant: Assistant) -> None:
    class Unlimited(torch.nn.Module):
        config = SimpleNamespace(model_type="unlimited")

    with pytest.raises(UserError, match="unlimited: its configuration states no context length"):
        Assistant(Unlimited(), assistant.tokens, "x")  # type: ignore[arg-type]


def test_an_unfinished_run_is_not_taken_for_a_finished_one(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("model: nano\n", encoding="utf-8")
    with pytest.raises(UserError, match="a run that did not finish"):
        load_assistant(str(tmp_path))
