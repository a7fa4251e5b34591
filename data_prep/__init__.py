"""Data builders: what people already have becomes one clean dataset, every unit kept or dropped with a reason.

Read the modules in this order; each kind of source by itself.

======================  ==========================================================================
``records``             what a builder yields: a record, or a dropped unit
``documents``           the formats of StarCoder and StarCoder2, each with its parser
``kinds``               the kinds of sources, and what each gives to the prepare stage
``views``               a unit as a document or as a dialogue, made sound
``pool``                pure tasks on all cores, results in order
``remote_files``        paths on this machine and in stores of objects
``input_files``         what a dataset depends on, and whether it has changed
``tasks``               pieces of work that write a folder each, whole or not at all
``slurm_array``         tasks as an array of Slurm jobs
``engines``             where tasks run: processes, Ray, Slurm
``stopping``            how Ctrl-C and SIGTERM end them
``arrays``              arrays as files
``item_files``          items between two passes
``build_shards``        pieces of sources to items, as tasks
``verdicts``            what becomes of each item, told by all of them
``tables``              the Parquet files of a dataset
``write_portions``      each of them as a task
``outputs``             where that goes, on this machine or to a store
``dataset``             all of that, one behind the other
``prepare``             the stage: a spec to one dataset folder
``census``              what it is made of
``card_plots``          the same as a picture
``card``                its data card
``prepared``            a finished dataset, read
``inspect``             a look at it
``assistant``           from a repository to spec, dataset and recipe
``compressed``          bytes behind ``.gz`` and ``.zst``
``sources``             raw rows from files, folders and Hub ids
``json_lines``          files of lines, parsed by whatever process
``code_columns``        which columns of tables of code say what
``spill``               rows sorted into partitions on disk
``git``                 repositories, read without their configuration
``languages``           which language a file is in
``python_syntax``       whether Python parses
``control_tokens``      texts that look like control tokens
``drafts``              dialogues: a row before cleaning
``clean``               dialogues made sound, or dropped by name
``messages``            lists of messages as turns
``formats``             the known formats of rows
``dirt``                what the making of one data set left in its texts
``oasst``               conversation trees
``preferences``         pairs of answers
``dialogues``           ``kind: dialogues``
``run_blocks``          whether code in dialogues prints what they say
``history``             the history of one row
``source_trees``        source: the files of a folder or commit
``file_text``           bytes as text
``generated``           what nobody wrote by hand
``licenses``            names of licences, and which are permissive
``license_policy``      classes of licences, and what may be trained on
``license_texts``       which licence a text is
``license_metadata``    which one a package states
``license_files``       which licence each file has
``source_rules``        the published thresholds
``doc_comments``        documented functions of other languages than Python
``docstrings``          documented functions as dialogues
``source_files``        one file after another
``source_documents``    many files in one document
``source_tables``       files in the rows of tables
``installed``           the running interpreter's own files
``source_code``         ``kind: source``
``changes``             commits: what changed between two contents
``commit_rules``        which commits are worth it
``commit_texts``        messages, windows, dialogues
``commitpack``          rows of CommitPack
``commits``             ``kind: commits``
``terminal``            notebooks: what a terminal would show
``cell_outputs``        outputs as text
``nbformats``           notebooks as cells
``magics``              what only a notebook understands
``notebook_rules``      which notebooks are worth it
``notebook_inputs``     where notebooks lie
``notebooks``           ``kind: notebooks``
``people``              issues and pull requests: bots, and names
``mail``                what mail added to a post
``post_texts``          posts cleared and cut
``threads``             an issue as it was found
``github_events``       events as threads
``issue_rules``         which issues are worth it
``issue_views``         document and dialogue of a thread
``issues``              ``kind: issues``
``pull_objects``        the single objects of exports
``pull_shapes``         a pull request as it was told
``pull_reading``        rows as pull requests
``pull_changes``        patches and the lines around them
``pull_states``         what a pull request changed, when
``pull_rules``          which pull requests are worth it
``pull_documents``      StarCoder2's format, with its parser
``pull_build``          a pull request as that format has it
``pull_dialogues``      reviews and suggestions
``pulls``               ``kind: pulls``
``record_texts``        curation: a record's texts, and the code among them
``github_names``        accounts and repositories, as people write them
``opt_out_issues``      what an issue asks to be taken out
``opt_out``             what people asked to be taken out
``comments``            how much of a file is comment
``filters``             thresholds on code and answers
``benchmark_items``     the problems of benchmarks
``verbatim``            texts found whole
``gram_kernels``        n-grams: the compiled loops
``gram_index``          texts found by their n-grams
``canonical_python``    functions whatever their names
``matched_texts``       what of a record is compared with them
``decontaminate``       problems in what is trained on
``near_miss``           the report on them
``secret_values``       secrets: which values are one
``addresses``           which addresses of mail and machines are somebody's
``secret_names``        which names tell one
``secret_shapes``       what one looks like
``secret_kinds``        the kinds of secrets
``detect``              where they are
``redact``              what stands for them
``names``               names of people, by a model
``record_redaction``    a record without any
``shingle_arrays``      near-duplicates: the plain loops
``shingle_kernels``     the compiled ones
``shingles``            what texts are compared by
``twin_arrays``         which of them resemble a kept one: the plain loops
``twin_kernels``        the compiled ones
``duplicate_tasks``     the steps that find near-duplicates
``near_duplicates``     which texts resemble one that is kept
``loaded_kernels``      compiled code for workers
``preferred``           which copy is kept
``curate``              the steps in their order
``try_filters``         filters tried on a dataset
``unlearn``             requests against finished datasets and runs
``train_tokenizer``     a tokenizer with StarCoder's layout
======================  ==========================================================================
"""
