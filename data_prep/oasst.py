"""OASST conversation trees as drafts, by the ranks that people gave.

In: rows of one of three shapes, told apart by their keys: a tree (``message_tree_id`` and ``prompt`` with ``replies``), a
thread (``thread_id`` and ``thread``), or one message (``message_id`` and ``parent_id``), of which a whole table is held in
memory to join its trees. Only rows that were read tell which they are, so one process reads them all; each tree is for any
process. Out: units, each a `Draft` or the `RowProblem` that drops it:

- ``paths: best`` - one unit for each tree: from the root, the best ranked reply that is sound, until there is none.
- ``paths: all`` - one unit for each path that ends with an answer nobody answered on, and one for each unsound node,
  which takes what hangs below it along. An answer on several paths is trained on the first of them only.

Unsound is what is deleted, labelled spam by at least half of the votes, failed in review, or empty.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from data_prep.drafts import Draft, RowProblem, read_role, required_text, wrong_type
from data_prep.records import Dropped
from data_prep.sources import Row, as_text, parse_json
from starchat.dialogue import Turn

OASST_ROLES = {"prompter": "user"}
MIN_SPAM = 0.5
NO_RANK = float("inf")


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One message of a tree; `unsound` says why it cannot be used, as (reason, detail)."""

    parent: int | None
    role: str
    text: str
    rank: float
    unsound: tuple[str, str] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Unit:
    """What is counted once: a path, or what was dropped, and the row it is from."""

    row: Row
    result: Draft | RowProblem


@dataclasses.dataclass(frozen=True, slots=True)
class Tree:
    """The row of a tree or thread; or that of a root with all `messages`, each with the number of its parent, which comes before it."""

    row: Row
    messages: tuple[tuple[int | None, Row], ...] = ()


def is_oasst(row: Mapping[str, Any]) -> bool:
    """Return whether a row has the keys of one of the three shapes."""
    message = "message_id" in row and "text" in row and ("parent_id" in row or row.get("role") == "prompter")
    return message or ("message_tree_id" in row and isinstance(row.get("prompt"), dict)) or ("thread_id" in row and "thread" in row)


def read_trees(rows: Iterable[Row | Dropped]) -> Iterator[Tree | Dropped]:
    """Yield the trees of a table, and what is in none; single messages are joined after the last row."""
    messages: list[Row] = []
    for row in rows:
        if isinstance(row, Dropped):
            yield row
        elif "prompt" not in row.value and "thread" not in row.value and "message_id" in row.value:
            messages.append(row)
        else:
            yield Tree(row)
    yield from _joined(messages)


def units_of(tree: Tree, paths: str, roles: Mapping[str, str]) -> Iterator[Unit]:
    """Yield the units of a tree."""
    try:
        nodes = _nodes(tree, roles)
    except RowProblem as problem:
        yield Unit(tree.row, problem)
        return
    for result in _units(nodes, paths):
        yield Unit(tree.row, result)


def _nodes(tree: Tree, roles: Mapping[str, str]) -> list[Node]:
    if tree.messages:
        return [_node(parent, row.value, roles) for parent, row in tree.messages]
    value = tree.row.value
    return _thread_nodes(value["thread"], roles) if "thread" in value else _tree_nodes(value.get("prompt"), roles)


def _tree_nodes(prompt: Any, roles: Mapping[str, str]) -> list[Node]:
    """Return the nodes of a nested tree; a parent comes before its children."""
    nodes: list[Node] = []
    waiting: collections.deque[tuple[int | None, Any]] = collections.deque([(None, prompt)])
    while waiting:
        parent, message = waiting.popleft()
        if not isinstance(message, dict):
            raise wrong_type("prompt" if parent is None else "replies", message, "a message")
        nodes.append(_node(parent, message, roles))
        replies = message.get("replies") or []
        if not isinstance(replies, list):
            raise wrong_type("replies", replies, "a list of messages")
        waiting.extend((len(nodes) - 1, reply) for reply in replies)
    return nodes


def _thread_nodes(thread: Any, roles: Mapping[str, str]) -> list[Node]:
    if not isinstance(thread, list) or not thread or not all(isinstance(message, dict) for message in thread):
        raise wrong_type("thread", thread, "a list of messages")
    return [_node(n - 1 if n else None, message, roles) for n, message in enumerate(thread)]


def _joined(messages: Sequence[Row]) -> Iterator[Tree | Dropped]:
    """Yield the trees of single messages, and each message whose parent is missing."""
    replies: dict[Any, list[Row]] = {}
    reached: set[int] = set()
    for row in messages:
        for key in ("parent_id", "message_id"):
            if not isinstance(row.value.get(key), str | None):
                reached.add(id(row))
                yield _lost(row, wrong_type(key, row.value[key], "a text or null"))
                break
        else:
            replies.setdefault(row.value.get("parent_id") or None, []).append(row)
    for root in replies.get(None, []):
        yield Tree(root, _joined_tree(root, replies, reached))
    for row in messages:
        if id(row) not in reached:
            detail = f"parent {row.value.get('parent_id')!r} is not in the file, or the message is its own ancestor"
            yield _lost(row, RowProblem("oasst_orphan", detail))


def _lost(row: Row, problem: RowProblem) -> Dropped:
    return Dropped(problem.reason, row.place, problem.detail, as_text(row.value), problem.fault)


def _joined_tree(root: Row, replies: Mapping[Any, Sequence[Row]], reached: set[int]) -> tuple[tuple[int | None, Row], ...]:
    """Return the messages below a root that were not reached before, each with the number of its parent."""
    messages: list[tuple[int | None, Row]] = []
    waiting: collections.deque[tuple[int | None, Row]] = collections.deque([(None, root)])
    while waiting:
        parent, row = waiting.popleft()
        if id(row) in reached:  # an id that is given twice
            continue
        reached.add(id(row))
        messages.append((parent, row))
        key = row.value.get("message_id")
        waiting.extend((len(messages) - 1, reply) for reply in replies.get(key, ()) if key is not None)
    return tuple(messages)


def _node(parent: int | None, message: Mapping[str, Any], roles: Mapping[str, str]) -> Node:
    rank = _cell(message.get("rank"))
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int | float)):
        raise wrong_type("rank", rank, "a number or null")
    role = read_role(message.get("role"), roles, OASST_ROLES)
    text = required_text(message, "text")
    if rank is None or rank != rank:  # NaN
        rank = NO_RANK
    return Node(parent, role, text, rank, _unsound(message, text))


def _unsound(message: Mapping[str, Any], text: str) -> tuple[str, str] | None:
    name = message.get("message_id")
    if _cell(message.get("deleted")):
        return "oasst_deleted", f"message {name} was deleted"
    if _cell(message.get("review_result")) is False:
        return "oasst_failed_review", f"message {name} failed in review"
    if (spam := _spam(_cell(message.get("labels")))) >= MIN_SPAM:
        return "oasst_spam", f"message {name} is labelled spam by {spam:.0%}"
    return None if text.strip() else ("empty_answer", f"message {name} is empty")


def _spam(labels: Any) -> float:
    """Return the share of votes for spam, from either way that labels are written.

    >>> _spam({"spam": {"value": 0.75, "count": 4}}), _spam({"name": ["spam"], "value": [0.75], "count": [4]}), _spam(None)
    (0.75, 0.75, 0.0)
    """
    value: Any = None
    if isinstance(labels, dict) and isinstance(labels.get("name"), list) and isinstance(labels.get("value"), list):
        value = next((value for name, value in zip(labels["name"], labels["value"], strict=False) if name == "spam"), None)
    elif isinstance(labels, dict) and isinstance(labels.get("spam"), dict):
        value = labels["spam"].get("value")
    if value is None:
        return 0.0
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise wrong_type("labels.spam", value, "a share from 0 to 1")
    return float(value)


def _cell(value: Any) -> Any:
    """Return what the text of a CSV cell stands for: a number, true or false, JSON, or null if it is empty.

    >>> _cell("1.0"), _cell("False"), _cell(""), _cell(True)
    (1.0, False, None, True)
    """
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value.lower().encode("utf-8", "surrogatepass")) if value else None
    except ValueError:
        return value


def _units(nodes: Sequence[Node], paths: str) -> Iterator[Draft | RowProblem]:
    children: dict[int, list[int]] = {}
    for number, node in enumerate(nodes):
        if node.parent is not None and nodes[node.parent].unsound is None:
            children.setdefault(node.parent, []).append(number)
    if nodes[0].unsound:
        yield RowProblem(*nodes[0].unsound)
    elif paths == "best":
        yield _best_path(nodes, children)
    else:
        yield from _all_paths(nodes, children)


def _best_path(nodes: Sequence[Node], children: Mapping[int, list[int]]) -> Draft | RowProblem:
    path = [0]
    while following := [n for n in children.get(path[-1], ()) if nodes[n].unsound is None]:
        answered = [n for n in following if nodes[n].role == "assistant" or _is_answered(nodes, children, n)]
        if not answered:
            break
        path.append(min(answered, key=lambda n: (nodes[n].rank, n)))
    if nodes[path[-1]].role != "assistant":
        return RowProblem("oasst_no_answer", "no sound answer in the tree")
    pruned = any(node.unsound for node in nodes)
    return Draft(tuple(Turn(nodes[n].role, nodes[n].text) for n in path), repairs=("oasst_nodes_pruned",) if pruned else ())


def _is_answered(nodes: Sequence[Node], children: Mapping[int, list[int]], number: int) -> bool:
    return any(nodes[n].unsound is None and nodes[n].role == "assistant" for n in children.get(number, ()))


def _all_paths(nodes: Sequence[Node], children: Mapping[int, list[int]]) -> Iterator[Draft | RowProblem]:
    trained: set[int] = set()
    empty = True
    waiting = [0]
    while waiting:
        number = waiting.pop()
        node = nodes[number]
        if unsound := node.unsound:
            empty = False
            yield RowProblem(*unsound)
            continue
        following = children.get(number, [])
        waiting.extend(reversed(following))
        if node.role == "assistant" and not any(_is_answered(nodes, children, n) for n in following if nodes[n].unsound is None):
            empty = False
            path = _path_to(nodes, number)
            yield Draft(tuple(Turn(nodes[n].role, nodes[n].text, train=n not in trained) for n in path))
            trained.update(n for n in path if nodes[n].role == "assistant")
    if empty:
        yield RowProblem("oasst_no_answer", "no sound answer in the tree")


def _path_to(nodes: Sequence[Node], number: int) -> list[int]:
    path = [number]
    while (parent := nodes[path[-1]].parent) is not None:
        path.append(parent)
    return path[::-1]
