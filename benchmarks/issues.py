"""Issues out of GHArchive's hours: `kind: issues` against a plain version of the same job with ``json`` and ``datasets.map``.

    python benchmarks/issues.py --megabytes 120 --rounds 3

Both sides read the same made-up hours on the same number of processes, in turns, each time in a process of its own: lines read, issue
events kept, threads put together, bots, quotations by mail and long comments taken out, thresholds asked, names replaced, documents
rendered. The plain side does it as its author would on an afternoon, BigCode's way: ``json.loads`` of each line, a list of events, then
``datasets`` with a `map` for each step. Megabytes are those of the uncompressed lines. Peak memory is that of all processes of a side.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import gzip
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

_WORDS = (
    "the build cache lock worker is fails when an empty folder two start together both see error in of to a message with version "
    "on after update please try branch this works for me thanks log output install config path file test and not it we should"
)
WORDS = _WORDS.split()
BOTS = ("stale[bot]", "codecov-commenter", "k8s-ci-robot")
OTHERS = ("PushEvent", "WatchEvent", "CreateEvent", "PullRequestEvent", "ForkEvent")
HEADER = "\n\nOn Tue, Jul 3, 2018 at 10:36 PM, X Y <notifications@github.com>\nwrote:\n\n> "


def sentence(rng: random.Random, count: int) -> str:
    """Return so many words in lines, as people write."""
    chosen = rng.choices(WORDS, k=count)
    return "\n".join(" ".join(chosen[at : at + 14]) for at in range(0, count, 14))


def account(login: str) -> dict[str, Any]:
    """Return an account with the addresses that the API puts into each."""
    home = f"https://api.github.com/users/{login}"
    names = ("followers", "following", "gists", "starred", "subscriptions", "organizations", "repos", "events", "received_events")
    addresses = {f"{name}_url": f"{home}/{name}" for name in names}
    known = {
        "login": login,
        "id": len(login),
        "node_id": "MDQ6VXNlcjE=",
        "gravatar_id": "",
        "url": home,
        "html_url": f"https://github.com/{login}",
    }
    return {**known, "avatar_url": "https://avatars.githubusercontent.com/u/1?v=4", **addresses, "type": "User", "site_admin": False}


def write_hours(folder: Path, megabytes: float) -> int:
    """Write hours of made-up events, 8 MB of lines each, a third of them of issues; return the bytes of all lines."""
    rng, total, hour, identity = random.Random(0), 0, 0, 0
    open_issues: collections.deque[dict[str, Any]] = collections.deque(maxlen=400)
    while total < megabytes * 1e6:
        lines, size = [], 0
        while size < 8e6:
            identity += 1
            line = json.dumps(event(rng, identity, hour, open_issues), separators=(",", ":")) + "\n"
            lines.append(line)
            size += len(line)
        with gzip.open(folder / f"2020-01-{1 + hour // 24:02}-{hour % 24}.json.gz", "wt", compresslevel=6) as file:
            file.writelines(lines)
        total += size
        hour += 1
    return total


def event(rng: random.Random, identity: int, hour: int, open_issues: collections.deque[dict[str, Any]]) -> dict[str, Any]:
    """Return one event of an hour: two in three are of no issue."""
    time_text = f"2020-01-{1 + hour // 24:02}T{hour % 24:02}:{identity // 60 % 60:02}:{identity % 60:02}Z"
    login = f"user{rng.randrange(3000)}x"
    line = {"id": str(identity), "type": rng.choice(OTHERS), "actor": {"id": 1, "login": login}, "repo": {"id": 2, "name": "acme/lib"}}
    line |= {"public": True, "created_at": time_text}
    if rng.random() < 0.66:
        return {**line, "payload": {"push_id": identity, "commits": [{"sha": "0" * 40, "message": sentence(rng, rng.randint(5, 200))}]}}
    if rng.random() < 0.25 or not open_issues:
        repository = f"org{rng.randrange(500)}/lib{rng.randrange(9)}"
        url = f"https://github.com/{repository}/issues/{identity}"
        asked = {"id": identity, "number": identity, "title": sentence(rng, 8), "user": account(login), "html_url": url}
        home = f"https://api.github.com/repos/{repository}/issues/{identity}"
        asked |= {"url": home, "repository_url": home, "labels_url": f"{home}/labels", "comments_url": home, "events_url": home}
        asked |= {"state": "open", "locked": False, "assignee": None, "milestone": None, "comments": 0, "reactions": {"url": home, "+1": 0}}
        asked |= {"body": sentence(rng, rng.randint(5, 250)), "created_at": time_text, "author_association": "NONE", "labels": []}
        open_issues.append(asked)
        action = {"type": "IssuesEvent", "payload": {"action": "opened", "issue": asked}}
    elif rng.random() < 0.15:
        asked = rng.choice(open_issues)
        action = {"type": "IssuesEvent", "payload": {"action": "closed", "issue": asked}}
    else:
        asked = rng.choice(open_issues)
        login = rng.choice(BOTS) if rng.random() < 0.1 else login
        body = f"@{asked['user']['login']} " * (rng.random() < 0.5) + sentence(rng, rng.randint(3, 120))
        body += HEADER + asked["body"].replace("\n", "\n> ") if rng.random() < 0.1 else ""
        said = {
            "id": identity,
            "user": account(login),
            "body": body,
            "created_at": time_text,
            "author_association": "NONE",
        }
        action = {"type": "IssueCommentEvent", "payload": {"action": "created", "issue": asked, "comment": said}}
    return {**line, **action, "repo": {"id": 2, "name": asked["html_url"].split("/", 3)[3].rsplit("/", 2)[0]}}


def ours(folder: Path, workers: int) -> int:
    """Build the documents, and return the number of those that were kept."""
    from data_prep.kinds import Setting, open_kind
    from data_prep.records import Kept

    opened = open_kind("issues", {"path": str(folder)}, "benchmark", Setting(workers=workers))
    return sum(isinstance(item, Kept) for item in opened.items())


def plain(folder: Path, workers: int) -> int:
    """Do the same with ``json`` and ``datasets``, and return the number of documents that were kept."""
    import datasets

    datasets.disable_progress_bars()
    files = sorted(str(path) for path in folder.glob("*.json.gz"))
    threads: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    source = datasets.Dataset.from_dict({"file": files})
    events = source.map(plain_events, batched=True, batch_size=1, num_proc=workers, remove_columns=["file"])
    for row in events:
        threads[f"{row['repo']}#{row['number']}"].append(row)
    rows = [{"key": key, "events": sorted(found, key=lambda e: e["created_at"])} for key, found in threads.items()]
    data = datasets.Dataset.from_list(rows)
    for step in (plain_mail, plain_cut, plain_bots):
        data = data.map(step, num_proc=workers)
    data = data.filter(plain_rules, num_proc=workers)
    return len(data.map(plain_names, num_proc=workers).map(plain_render, num_proc=workers))


def plain_events(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
    """Return the events of issues in a file as columns."""
    names = ("repo", "number", "created_at", "type", "author", "title", "text")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    seen: set[str] = set()
    for name in batch["file"]:
        with gzip.open(name, "rt", encoding="utf-8") as file:
            for line in file:
                event = json.loads(line)
                if event["type"] not in ("IssuesEvent", "IssueCommentEvent"):
                    continue
                issue, comment = event["payload"]["issue"], event["payload"].get("comment")
                if "pull_request" in issue or event["id"] in seen:
                    continue
                seen.add(event["id"])
                text = (comment or issue)["body"] if comment or event["payload"]["action"] == "opened" else ""
                author = (comment or issue)["user"]["login"]
                kind = "comment" if comment else event["payload"]["action"]
                values = (event["repo"]["name"], issue["number"], event["created_at"], kind, author, issue["title"], text or "")
                for key, value in zip(names, values, strict=True):
                    columns[key].append(value)
    return columns


def plain_mail(row: dict[str, Any]) -> dict[str, Any]:
    """Cut quotations by mail."""
    for event in row["events"]:
        if "wrote:" in event["text"]:
            event["text"] = re.sub(r"(?m)^On [^\n]{5,200}(?:\n[^\n]{0,80})?wrote:\s*\n(?:>[^\n]*\n?|\s*\n)*", "", event["text"]).strip()
    return row


def plain_cut(row: dict[str, Any]) -> dict[str, Any]:
    """Cut long comments."""
    for event in row["events"]:
        lines = event["text"].split("\n")
        if len(lines) > 80:
            event["text"] = "\n".join([*lines[:60], "[Truncated]", *lines[-20:]])
    return row


def plain_bots(row: dict[str, Any]) -> dict[str, Any]:
    """Leave out bots."""
    row["events"] = [event for event in row["events"] if not re.search(r"\[bot\]$|[-_]ro?bot$|codecov|[-_]ci$", event["author"])]
    return row


def plain_rules(row: dict[str, Any]) -> bool:
    """Ask the thresholds."""
    events = row["events"]
    size = sum(len(event["text"]) for event in events)
    users = len({event["author"] for event in events})
    return bool(events) and size >= 200 and (users >= 2 or (size <= 7000 and len(events) <= 10))


def plain_names(row: dict[str, Any]) -> dict[str, Any]:
    """Replace names, whole ones only."""
    names: dict[str, str] = {}
    for event in row["events"]:
        names.setdefault(event["author"], f"username_{len(names)}")
        for login in re.findall(r"(?<!\w)@([\w-]+)", event["text"]):
            names.setdefault(login, f"username_{len(names)}")
    found = re.compile("|".join(rf"(?<![\w-]){re.escape(name)}(?![\w-])" for name in names))
    for event in row["events"]:
        event["text"] = found.sub(lambda match: names[match[0]], event["text"])
        event["author"] = names[event["author"]]
    return row


def plain_render(row: dict[str, Any]) -> dict[str, Any]:
    """Write the document as text."""
    first, *rest = row["events"]
    text = f"<issue_start>Title: {first['title']}\n{first['author']}: {first['text']}"
    for event in rest:
        text += "<issue_closed>" if event["type"] == "closed" else f"<issue_comment>{event['author']}: {event['text']}"
    return {"document": text}


class Ran(NamedTuple):
    """What one side took: seconds by the clock, seconds of processor time, peak MB of its processes together; documents kept."""

    seconds: float
    processor: float
    peak: float
    kept: int


def run_side(side: str, folder: Path, workers: int) -> Ran:
    """Run one side in a process of its own, and watch all its processes."""
    import psutil

    command = [sys.executable, __file__, "--side", side, "--folder", str(folder), "--workers", str(workers)]
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "HF_HOME": cache, "HF_DATASETS_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        watched, peak, used = psutil.Process(process.pid), 0, dict[int, float]()
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                alive = [watched, *watched.children(recursive=True)]
                used |= {p.pid: sum(p.cpu_times()[:2]) for p in alive}
                peak = max(peak, sum(p.memory_full_info().pss for p in alive))
            time.sleep(0.1)
        assert process.stdout is not None
        result = json.loads(process.stdout.read().splitlines()[-1])
    return Ran(result["seconds"], sum(used.values()), peak / 1e6, result["kept"])


def told(side: str, size: int, ran: Ran) -> str:
    """Return a line of the table."""
    speed = f"{size / 1e6 / ran.seconds:8.1f} MB/s  {ran.seconds:6.1f} s  processor {ran.processor:6.1f} s"
    return f"{side:5}  {speed}  peak {ran.peak:6.0f} MB  kept {ran.kept:,}"


def main() -> None:
    """Print throughput of both sides and their ratio, and the memory at one and four times the input."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--megabytes", type=float, default=120)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    arguments.add_argument("--side", choices=("ours", "plain"))
    arguments.add_argument("--folder", type=Path)
    options = arguments.parse_args()
    if options.side:
        begin = time.perf_counter()
        kept = {"ours": ours, "plain": plain}[options.side](options.folder, options.workers)
        print(json.dumps({"seconds": time.perf_counter() - begin, "kept": kept}))
        return
    with tempfile.TemporaryDirectory(prefix="issues-benchmark-") as name:
        once, four = Path(name, "once"), Path(name, "four")
        once.mkdir()
        four.mkdir()
        size, large = write_hours(once, options.megabytes), write_hours(four, 4 * options.megabytes)
        runs: dict[str, list[Ran]] = {"ours": [], "plain": []}
        for turn in range(options.rounds):
            for side in ("ours", "plain") if turn % 2 == 0 else ("plain", "ours"):
                runs[side].append(run_side(side, once, options.workers))
                print(told(side, size, runs[side][-1]), flush=True)
        pairs = list(zip(runs["ours"], runs["plain"], strict=True))
        clock = statistics.median(plain.seconds / ours.seconds for ours, plain in pairs)
        processor = statistics.median(plain.processor / ours.processor for ours, plain in pairs)
        print(
            f"{size / 1e6:.0f} MB of lines, {options.workers} processes: {clock:.1f} times by time, {processor:.1f} times by processor time"
        )
        print(told("ours", large, run_side("ours", four, options.workers)), " (four times the input)")


if __name__ == "__main__":
    main()
