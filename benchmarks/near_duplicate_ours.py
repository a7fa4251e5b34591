"""Near-duplicates by `data_prep`, the whole command for `benchmarks/near_duplicates.py`: JSONL in, kept JSONL out.

    python benchmarks/near_duplicate_ours.py CORPUS OUTPUT WORKERS

The process that workers are forked from begins first, as `starchat prepare` has it, and gets ready while this one imports what it needs.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import orjson

from data_prep.pool import start_server

THRESHOLD = 0.7
BUFFER_BYTES = 1 << 20


def main() -> None:
    """Write what is kept of a corpus."""
    corpus, output, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    start_server(["data_prep.loaded_kernels", "data_prep.tasks"], workers)
    import near_duplicate_ours  # this file, by the name that workers know
    from near_duplicate_peers import write_kept

    from data_prep.engines import Engine
    from data_prep.near_duplicates import NearDuplicateRules, find_near_duplicates

    parts = sorted(corpus.glob("part-*.jsonl"))
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        rules, read = NearDuplicateRules(THRESHOLD), near_duplicate_ours.read_texts
        removed = find_near_duplicates(Engine(workers=workers), parts, read, folder, rules, "")
    write_kept(corpus, output, {found.document for found in removed})


def read_texts(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the text and rank of each row of a file."""
    with open(path, "rb", BUFFER_BYTES) as file:
        for line in file:
            yield orjson.loads(line)["text"], 0


if __name__ == "__main__":
    main()
