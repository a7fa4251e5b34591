"""Run a peer over texts, in the peer's own Python: ``detect-secrets`` by its defaults, or the code of bigcode-dataset as it is.

    python benchmarks/secret_peers.py detect-secrets < texts.jsonl > finds.jsonl

Each line in is ``{"text": ..., "suffix": ...}``; each line out the finds, as ``[[start, end], ...]``. The last line is the time that it
took in seconds, without reading and writing. Needs nothing of this package. For bigcode-dataset, run it in its folder ``pii``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import time
from typing import Any


def detect_secrets_finds(text: str, suffix: str) -> list[list[int]]:
    """Return where the secrets stand that detect-secrets names by line and value."""
    from detect_secrets import SecretsCollection
    from detect_secrets.settings import default_settings

    with tempfile.NamedTemporaryFile("w", suffix=suffix, delete=False, encoding="utf-8", errors="replace") as file:
        file.write(text)
    secrets = SecretsCollection()
    with default_settings():
        secrets.scan_file(file.name)
    os.unlink(file.name)
    finds = []
    for _, secret in secrets:
        value = secret.secret_value or ""
        start = text.find(value) if value else -1
        while start >= 0:
            finds.append([start, start + len(value)])
            start = text.find(value, start + 1)
    return finds


def bigcode_finds(text: str, suffix: str) -> list[list[int]]:
    """Return what ``scan_pii_batch`` of bigcode-dataset finds."""
    sys.path.insert(0, os.getcwd())
    from pii_detection import scan_pii_batch  # type: ignore[import-not-found]

    with contextlib.redirect_stdout(io.StringIO()):
        found: dict[str, Any] = scan_pii_batch({"content": [text]})
    sys.path.pop(0)
    return [[secret["start"], secret["end"]] for secret in json.loads(found["secrets"][0])]


def main() -> int:
    """Read texts, find, and print."""
    find = {"detect-secrets": detect_secrets_finds, "bigcode": bigcode_finds}[sys.argv[1]]
    rows = [json.loads(line) for line in sys.stdin]
    find("x = 1\n", ".py")
    begin = time.process_time()
    finds = []
    for row in rows:
        try:
            finds.append(find(row["text"], row["suffix"]))
        except Exception as error:  # noqa: BLE001  # a peer's fall over one text is counted, not hidden
            finds.append([["failed", f"{type(error).__name__}: {error}"[:100]]])
    spent = time.process_time() - begin
    for found in finds:
        print(json.dumps(found))
    print(spent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
