"""Run the Python code blocks of dialogues and compare what they print with what the dialogue claims.

In: dialogues as chat messages. Out: one fault per block that raises, does not end in time, or prints
something other than the ``output`` block behind it. Nothing is written.

The blocks of all assistant turns of one dialogue run in order in one namespace, in a process of their own
with an empty temporary folder as working folder. This shows that honest code works; it is no sandbox
against hostile code.

    python -m data_prep.run_blocks FILE.jsonl ...
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from starchat.fences import code_blocks

# Runs inside the child: reads blocks from standard input, writes what each printed, also by programs that it ran, to standard output.
DRIVER = """
import json, os, sys, tempfile, traceback
namespace = {"__name__": "__main__"}
answer = os.fdopen(os.dup(1), "w")
results = []
for code in json.load(sys.stdin):
    fault = None
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 1)
        try:
            exec(compile(code, "<block>", "exec"), namespace)
        except BaseException:
            fault = traceback.format_exc(limit=-2)
        printed.seek(0)
        results.append([printed.read().decode("utf-8", "replace"), fault])
json.dump(results, answer)
"""


def block_faults(messages: Sequence[Mapping[str, str]], timeout_s: float = 20.0) -> list[str]:
    """Return what is wrong with the Python blocks of one dialogue's assistant turns; empty if all run."""
    programs: list[str] = []
    claims: list[str | None] = []
    for message in messages:
        if message["role"] != "assistant":
            continue
        previous = ""
        for language, body in code_blocks(message["content"]):
            if language in ("python", "py"):
                programs.append(body)
                claims.append(None)
            elif language == "output" and previous in ("python", "py"):
                claims[-1] = body
            previous = language
    if not programs:
        return []
    with tempfile.TemporaryDirectory() as folder:
        try:
            child = subprocess.run(
                [sys.executable, "-I", "-u", "-X", "utf8", "-c", DRIVER],
                input=json.dumps(programs),
                capture_output=True,
                text=True,
                timeout=timeout_s,
                cwd=folder,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return [f"the blocks did not end within {timeout_s:g} s"]
    if child.returncode != 0 or not child.stdout:
        return [f"the interpreter stopped with status {child.returncode}: {child.stderr[-300:]}"]
    return list(_compare(json.loads(child.stdout), claims))


def _compare(results: Sequence[tuple[str, str | None]], claims: Sequence[str | None]) -> Iterator[str]:
    for number, ((printed, fault), claim) in enumerate(zip(results, claims, strict=True), 1):
        if fault is not None:
            yield f"block {number} raised: {fault.strip()}"
        elif claim is not None and claim.rstrip("\n") != printed.rstrip("\n"):
            yield f"block {number} printed {printed!r}, the dialogue says {claim!r}"


def main(paths: Sequence[str]) -> int:
    """Print every fault of the named JSONL files; return 1 if there is one."""
    dialogues = faults = 0
    for path in paths:
        for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
            dialogues += 1
            for fault in block_faults(json.loads(line)["messages"]):
                faults += 1
                print(f"{path}:{number}: {fault}")
    print(f"{dialogues} dialogues, {faults} faults", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
