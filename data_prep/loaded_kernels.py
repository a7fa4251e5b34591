"""Compiled code, loaded: for the process that workers are forked from to import (`data_prep.pool.start_server`), and for nobody else.

Each worker, of each step, would otherwise spend half a second on numba before its first text. A process that others are forked from can
be told to import, and nothing more; therefore this module, alone in the package, works when it is imported.
"""

from __future__ import annotations

import gc

from data_prep.duplicate_tasks import load_kernels

gc.disable()  # nothing that is loaded is garbage
load_kernels()
gc.enable()
