"""Every check by name: what it protects, when it runs, and what to do when it does not hold.

In: nothing. Out: `CHECKS`, from which findings take their remedy and ``docs/checks.md`` its table. What a check looks at is said where
it is made: ``detect_*`` and ``probe*`` before a run, ``watch`` during it, ``verify`` after it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

OUR_FAULT = "this is a fault of the encoder or of the tokenizer, not of the data; do not train; report it with this line"
FETCH = "fetch the base model again, all files of one revision"
OTHER_BASE = "take another attention implementation or base model; do not train with this one"

GROUPS = ("data", "encoding", "base model", "model at work", "schedule", "disk", "run", "result")
"""The order in which a report tells its findings."""


@dataclasses.dataclass(frozen=True)
class Check:
    """A check as the table tells it: `protects` names a law or what goes wrong without it."""

    name: str
    group: str
    when: str
    protects: str
    remedy: str


def _of(group: str, when: str, *checks: tuple[str, str, str]) -> Iterator[Check]:
    for name, protects, remedy in checks:
        yield Check(name, group, when, protects, remedy)


# fmt: off
CHECKS = (
    *_of("data", "before",
        ("lengths", "law 5: nothing is cut in silence",
         "raise max_length_tokens; or shorten those records; or raise max_set_aside_fraction to accept the loss"),
        ("conservation", "law 9: every record is in rows or set aside, with all that it was to train", OUR_FAULT),
        ("dead_rows", "law 4: no row without a trained token", "drop those records, or train one of their turns"),
        ("trained_share", "that most of the computing does not go into tokens that teach nothing",
         "shorten the prompts, or train more of the turns"),
        ("no_empty_answers", "that the model is not taught to stop before it has said anything",
         "run starchat prepare on the source, which sets such rows aside; or give the turn weight: 0"),
        ("answers_differ", "that the model is not taught one answer to everything",
         "remove the repeats where the dataset is built, or give those turns weight: 0"),
        ("answers_close_their_fences", "law 5: answers that another model's limit cut off",
         "drop those records: their answers end within a code block, and so would the model's"),
        ("no_endless_runs", "that the model is not taught to repeat a token for ever", "drop those records, or cut the run out of them"),
        ("no_record_dominates", "mixture weights: no single record outweighs the rest",
         "lower the weight of its source in the mixture, or drop the record"),
        ("pairs_are_whole", "law 9, of pairs: both answers of each are in rows, or it is set aside", OUR_FAULT),
        ("sides_differ", "pairs whose answers are the same, which have no gradient", "drop those pairs"),
        ("preferences_agree", "pairs that take back what others teach", "drop the pairs on which the judges did not agree"),
        ("duplicate_pairs", "pairs repeated by mistake",
         "remove duplicates where the dataset is built; to repeat on purpose use a mixture weight"),
        ("duplicate_rows", "rows repeated by mistake",
         "remove duplicates where the dataset is built; to repeat on purpose use a mixture weight"),
        ("train_test_disjoint", "law 13: test rows that are also trained",
         "build the splits with starchat prepare, which splits by the conversation's first question"),
        ("questions_of_the_test_unseen", "law 13: test dialogues whose first question is also trained",
         "build the splits with starchat prepare, which splits by the conversation's first question"),
        ("fim_share", "the rate of fill-in-the-middle asked for",
         "raise max_length_tokens: a permuted window that does not fit stays as it was; or change fim.rate"),
    ),
    *_of("encoding", "before",
        ("trained_tokens_are_the_answers", "law 1: what is trained is the answers and their end tokens", OUR_FAULT),
        ("every_end_token_is_trained", "law 1: the model learns to stop", "the model would not learn to stop; " + OUR_FAULT),
        ("user_and_system_untrained", "law 1: nothing but answers is trained", OUR_FAULT),
        ("all_but_first_trained", "law 1, of documents", OUR_FAULT),
        ("placeholders_untrained", "that the model does not learn to write what stands for secrets and names, and learns all the rest",
         OUR_FAULT),
        ("one_prompt", "law 3, of pairs: both answers stand behind the same tokens", OUR_FAULT),
        ("first_tokens_untrained", "law 4: no token is predicted from another row", OUR_FAULT),
        ("documents_are_whole", "laws 4 and 5, of documents", OUR_FAULT),
        ("no_forged_control_tokens", "law 2: no text becomes a control token", OUR_FAULT),
        ("texts_survive_the_tokenizer", "law 11: what is read is what was written",
         "the tokenizer changes or loses these texts; take the base model's own fast tokenizer, or drop the texts"),
        ("one_beginning_token", "law 3: one beginning token, or none", OUR_FAULT),
        ("prompt_is_a_prefix", "law 3: the model is asked as it was trained",
         "the model would be asked otherwise than it was trained; " + OUR_FAULT),
        ("jinja_gives_the_same_ids", "law 3: other programs prompt as training did",
         "other programs would prompt the model otherwise; " + OUR_FAULT),
        ("rows_are_encoded_alone", "law 10: a row does not depend on what is encoded beside it", OUR_FAULT),
        ("end_token_stops", "that generation stops where training ended a reply",
         "name another pad_token in the base model's tokenizer_config.json, or take another template"),
        ("new_tokens_counted", "that the template's tokens have rows of their own",
         "the tokenizer already has these words as text; take template native or another base model"),
        ("ids_in_vocabulary", "ids beyond the embedding: a device assertion, or another row's meaning",
         "the tokenizer does not belong to the model; fetch both again"),
        ("packing", "law 4: each row in one group, none too long",
         "this is a fault of the packing, not of the data; train with packing: false and report it"),
        ("labels_survive_batching", "law 1: labels are masked by length, never by the padding token's id", OUR_FAULT),
    ),
    *_of("base model", "before",
        ("base_files_are_whole", "shards that are cut off, missing or of another model", FETCH),
        ("base_weights_are_finite", "weights that are no numbers", FETCH),
        ("base_is_not_quantized", "that what is merged and saved is not rounded twice",
         "take the model's unquantised weights; quantization: nf4 holds them in 4 bits for this run"),
        ("head_is_as_stated", "a tied head that is not, or an untied one that is missing",
         "set tie_word_embeddings in the base model's config.json to what its files hold"),
        ("tokenizer_fits_the_weights", "a tokenizer of another model", "tokenizer and weights are of different models; fetch both again"),
        ("used_rows_are_trained", "loss that is no number from embedding rows that the base model never trained",
         "take template starchat, whose new tokens begin at the mean row; or a base model whose tokens were trained"),
        ("end_of_text_agrees", "a base model that ends its texts with another token than its tokenizer says",
         "correct eos_token in tokenizer_config.json, or eos_token_id in config.json"),
    ),
    *_of("model at work", "before",
        ("packed_is_alone", "law 4: a packed row has the logits that it has alone",
         "rows of one group see each other in this model: set packing: false, or take a base model of another architecture"),
        ("padded_is_alone", "law 6: padding changes nothing", OTHER_BASE),
        ("attention_is_as_eager", "an attention backend that is wrong for this model",
         "set attn_implementation eager in config.json, or update torch"),
        ("cache_gives_the_same_logits", "law 3: what is generated follows what was trained", OTHER_BASE),
        ("accumulation_is_one_update", "law 6: many small batches give the gradient of one large", OTHER_BASE),
        ("checkpointing_changes_nothing", "activation checkpointing that loses gradients", "set trainer.activation_checkpointing: false"),
        ("steps_repeat", "law 8: the same step from the same weights is the same",
         "a layer draws random numbers outside torch's generators, or keeps state: take another attention implementation or base model"),
        ("new_rows_begin_at_the_mean", "new tokens that begin far from all others",
         "this is a fault of growing the vocabulary; do not train; report it"),
        ("new_rows_get_gradient", "law 7: the template's tokens are trained under every method",
         "this is a fault of wrapping the model; do not train; report it with the recipe"),
        ("adapter_begins_as_identity", "that the first step starts from the base model",
         "this is a fault of PEFT with this model: take another lora variant"),
        ("every_tensor_moves", "dead adapters, and weights too coarse for their updates",
         "leave those layers out of lora.target_modules; or raise learning_rate; or train in float32"),
    ),
    *_of("schedule", "before",
        ("learning_rate_reaches_its_peak", "a warm-up longer than the run, or a rate of zero",
         "shorten warmup_steps (below 1 it is a share of all steps), train longer, or set learning_rate above 0"),
        ("learning_rate_is_not_spent_early", "a run that goes on after its learning rate has ended",
         "make the schedule as long as the run: correct lr_scheduler_kwargs"),
        ("learning_rate_falls_to_its_end", "a schedule that is to fall and does not",
         "correct lr_scheduler_kwargs, or take lr_scheduler_type constant_with_warmup if that is meant"),
        ("updates_are_many_enough", "an effective batch so large that the model is hardly updated",
         "lower gradient_accumulation_steps or per_device_train_batch_size, or train more epochs; a trial states max_steps"),
        ("processes_share_the_data", "processes that train on padding", "start fewer processes, or lower per_device_train_batch_size"),
    ),
    *_of("disk", "before",
        ("disk_has_room", "a disk that is full in the middle of a run",
         "free some space; or lower save_total_limit; or set save_strategy: \"no\"; or choose an output elsewhere"),
        ("output_can_be_written", "a run whose result cannot be saved", "choose another output, or make the folder writable"),
    ),
    *_of("run", "during",
        ("engine_is_as_asked", "a launch whose DeepSpeed configuration was ignored", "unset ACCELERATE_USE_CPU, or see recipes/accelerate"),
        ("first_loss_is_as_alone", "law 6: weights that an engine lost or changed, and losses that it scales wrongly",
         "the engine trains another model or loss than one process has: launch with another configuration of recipes/accelerate"),
        ("learning_rate_is_as_planned", "a scheduler that is stepped once per process",
         "remove the scheduler from the DeepSpeed configuration; the recipe states it"),
        ("loss_is_a_number", "a run that goes on without learning",
         "lower learning_rate, lengthen the warm-up, or look at the rows of this step with starchat check --html"),
        ("gradients_reach_what_is_trained", "tensors that are saved as they began",
         "leave their layers out of lora.target_modules, or turn activation checkpointing off"),
        ("updates_are_not_skipped", "float16 whose gradients overflow at every step", "train in bfloat16, or lower learning_rate"),
    ),
    *_of("result", "after",
        ("fresh_process", "law 7: a result that cannot be loaded at all", "see what it says; run the command again"),
        ("files_are_whole", "law 7: shards without elements, files cut off",
         "the save was incomplete (a full disk, a kill, ungathered ZeRO-3 shards): train again"),
        ("files_are_as_recorded", "law 7: a result that was changed after its run", "restore the files, or train again"),
        ("same_ids", "law 3, in a fresh process", "the saved tokenizer is not the one that trained: restore it or train again"),
        ("same_ids_through_jinja", "law 3, in transformers",
         "chat_template.jinja or tokenizer.json was changed: restore them or train again"),
        ("same_logits", "law 7: what was saved is what was trained", "what was saved is not what was trained: do not use it; train again"),
        ("merged_is_adapter", "law 7, of a merge", "restore the run and its base, or pass --dtype float32"),
        ("weights_are_finite", "law 7: weights that are no numbers", "lower the learning rate, or clip gradients (max_grad_norm)"),
        ("end_token_in_generation_config", "replies that never stop elsewhere", "add the end token's id to eos_token_id"),
        ("adapter_is_not_base", "an adapter that changes nothing", "the adapter changes nothing: its weights did not train, save or load"),
        ("every_matrix_moved", "matrices of an adapter that no gradient reached",
         "these matrices got no gradient: leave their layers out of lora.target_modules, or train longer"),
        ("tied_as_stated", "a head that another program would tie or untie", "save the model with its true tie_word_embeddings"),
        ("replies_stop", "replies that never stop", "train longer, or lower min_stop_rate for replies that are long by nature"),
    ),
)
# fmt: on

BY_NAME = {check.name: check for check in CHECKS}


def table() -> str:
    """Return the checks as a Markdown table, in the order in which a report tells them."""
    lines = ["| check | protects | when | remedy |", "|---|---|---|---|"]
    lines += [f"| `{c.name}` | {c.protects} | {c.when} | {c.remedy} |" for group in GROUPS for c in CHECKS if c.group == group]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
