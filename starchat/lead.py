"""The processes of a launch and each other: the first one decides how a run begins, the others wait for its word, and each notices
when another is gone.

What it decides is told through the store of the launch (``MASTER_ADDR``, ``MASTER_PORT``), which ends with the first machine. So a
process on another machine never waits for a first one that is gone, and no file of an earlier launch is taken for this one's.
Reading, checking and encoding may take hours: there is no time limit on work, only on a store that is silent.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from starchat.errors import UserError

POLL_S = 0.5
GLOO = "gloo/transport"
"""What the errors of gloo's connections name: the file of its source that they come from."""

SILENT_S = 120
"""How long the first machine may leave a question of the store unanswered."""


def first_decides(decide: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return in every process the JSON mapping that `decide` returns in the first one, where alone it is called.

    If it raises, so does this in the first process; in the others, `UserError` with its message.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return decide()
    key = f"starchat/begin/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if int(os.environ["RANK"]) != 0:
        return _wait(key)
    word: dict[str, Any] = {"failed": "it ended with an error of its own"}
    try:
        decided = decide()
        word = {"decided": decided}
    except UserError as error:
        word = {"failed": str(error)}
        raise
    finally:
        _store().set(key, json.dumps(word))
    return decided


@contextlib.contextmanager
def noticing_the_lost() -> Iterator[None]:
    """Turn what gloo or NCCL say in the block when another process is gone into one message."""
    from torch.distributed import DistError

    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, DistError) and GLOO not in str(error):
            raise
        what = str(error).strip().splitlines()[0].rpartition("] ")[2]
        raise UserError(
            f"another process of this launch is gone ({what[:200]}); its own messages say why; give the same command again on all "
            "machines to go on from the last checkpoint"
        ) from None


def _wait(key: str) -> dict[str, Any]:
    from torch.distributed import DistError

    try:
        store = _store()
        while not store.check([key]):
            time.sleep(POLL_S)
        word = json.loads(store.get(key))
    except DistError as error:
        what = str(error).strip().splitlines()[0]
        raise UserError(f"the first process is gone ({what}); its own messages say why; start the launch again on all machines") from None
    if "failed" in word:
        raise UserError(f"the first process could not begin: {word['failed']}")
    return dict(word["decided"])


def _store() -> Any:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(address, port, is_master=False, timeout=timedelta(seconds=SILENT_S))
