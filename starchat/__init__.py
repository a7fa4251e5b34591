"""starchat turns a base code model into a technical assistant, and proves that it did.

Read the modules in the order in which data flows through them:

======================  ==========================================================================
``errors``              the one exception that a user sees
``config``              YAML into dataclasses, strictly, all faults at once
``files``               folders that are finished or absent: digests, atomic writes, manifests
``batches``             consecutive groups of a stream
``dialogue``            the record that every builder makes
``template``            a dialogue as segments with a trained flag; the same as a Jinja chat template
``faster_tokenizer``    a faster engine, where it gives the same ids
``tokenizer_file``      the file of a tokenizer, read and checked
``tokens``              a tokenizer whose control tokens no text can forge
``placeholders``        what stands in texts for what was taken out, and is not trained on
``encode``              records to rows of ids and labels; over-long dialogues split at turns
``fim``                 fill-in-the-middle at the character level
``fences``              code blocks in Markdown
``pack``                rows to packed rows that do not see each other
``recipe``              what a training run is
``document``            documents to rows, for pretraining
``pairs``               pairs of answers to rows, for preference tuning
``rows``                a recipe's dataset, encoded and packed
``hub``                 where a model lies and what its configuration says
``finding``             a check's verdict, and all of them together
``holes``               which tokens stand for placeholders, told by their bytes
``evidence``            rows laid end to end, beside the records that they claim to be
``catalogue``           every check by name: what it protects, and the remedy
``detect_*``            checks without a model: of dialogues, pairs, documents, placeholders, rows, data, a base's files, the schedule
``weights``             a model's weight files as they lie on the disk
``measure``             the numbers of an encoded dataset
``check``               the loss X-ray: laws proved on every row before training
``xray``                how a report looks as text, and the one call that writes its page
``xray_page``           the page: every token coloured by whether it is trained
``model``               base model, new token rows, LoRA
``attention``           rows of a packed line attend alone, without a mask
``checkpoint``          checkpoints that are whole or do not count, and the room they need
``resume``              an unfinished run is gone on with, or refused with what differs
``lead``                the processes of a launch and each other: who decides how a run begins, who is gone
``kernel_cache``        locks that a killed process left in the cache of compiled kernels
``stop_and_go``         a trainer that can be stopped at any moment
``schedule``            a run's updates and learning rates, before it begins
``probe*``              checks of the model at work: packing, padding, attention, cache, gradients
``preflight``           all checks before a run
``flops``               how much arithmetic a model needs for a token
``memory``              how much memory a step needs, found without computing it
``predict``             the memory of a recipe's step
``gpus``                what a card can do
``speed``               how long an update takes on a card
``plan``                what fits and what it costs
``plan_text``           how a plan looks, and the command that it recommends
``trial``               two worst-case steps, measured
``dpo``                 preference tuning: what it compares with, and the proof that it is that
``train``               the training run, through TRL
``first_loss``          the engine before its first step, against one process
``collectives``         how long a process stands in collective operations
``telemetry``           what a run tells of its speed, and where the time goes
``watch``               what ends a run while it trains
``export``              what a run leaves behind, with its golden cases
``verify``              the reload gate
``sampling``            how the next token is chosen
``conversation``        a conversation that grows, is retried, undone, edited and fitted to a context
``generate``            prompt to reply, streaming
``score``               loss on answers and stop rate, with intervals
``infill``              does it still fill in the middle: before and after a run
``chat``                the terminal chat
``quickstart``          the whole road on the embedded base model
``cli``                 the command line; nothing imports it
======================  ==========================================================================

``data_prep`` reads and cleans sources; ``demo`` is the chat page. Importing ``starchat`` imports nothing heavy.
"""

from __future__ import annotations

import logging

from starchat.errors import UserError

logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # on import it asks every user for a kernel from the Hub

__version__ = "0.1.0"
__all__ = ["UserError", "__version__"]
