"""The command line. Each command imports what it needs when it runs; ``--help`` imports nothing heavy.

Exit status: 0 done and all checks hold; 1 checks found a fault; 2 the user must change something. With ``--json`` standard
output holds one JSON object and everything else goes to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from starchat import __version__
from starchat.errors import UserError, guarded


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command."""
    options = _parse(argv)
    return guarded(lambda: int(options.run(options)))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options. A ``key=value`` may also stand behind a flag, where argparse by itself refuses it."""
    top = parser()
    options, rest = top.parse_known_args(argv)
    overrides = [text for text in rest if "=" in text and not text.startswith("-")]
    if len(overrides) < len(rest) or (rest and "overrides" not in options):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides = [*options.overrides, *overrides]
    return options


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(
        prog="starchat", description="Turn a base code model into a technical assistant, and prove that it was done right."
    )
    top.add_argument("--version", action="version", version=f"starchat {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    one = _command(commands, "prepare", _prepare, "build and clean a dataset", "starchat prepare recipes/nano/data.yaml")
    one.add_argument("spec", nargs="?", help="a YAML file that names sources and output")
    one.add_argument("--repo", metavar="PATH", help="instead of a spec: a clone, bare repository or folder to make an assistant for")
    one.add_argument("--issues", metavar="FILE", help="with --repo: an export of its issues and pull requests")
    one.add_argument("--output", metavar="FOLDER", help="with --repo: where spec, dataset and recipe go (default assistant)")
    one.add_argument("--model", help="with --repo: the base model (default nano)")
    one.add_argument("--workers", type=int, metavar="N", help="processes that read and build (default: one a core); the bytes are the same")
    _engine(one)
    _overrides(one)

    what, example = "look at a dataset: counts, lengths, drops, samples", "starchat inspect dataset/ --plot lengths.png"
    one = _command(commands, "inspect", _inspect, what, example)
    one.add_argument("dataset", help="a folder that starchat prepare wrote")
    one.add_argument("--samples", type=int, default=3, help="how many dialogues and dropped rows to show (default 3)")
    one.add_argument("--reason", help="show rows that were dropped for this reason")
    one.add_argument("--id", help="show the whole history of the row whose id begins so")
    one.add_argument("--filter", action="append", metavar="key=value", help="show the rows that this rule of curate.filters would take")
    one.add_argument("--plot", metavar="FILE.png", help="also write the lengths, roles and drop reasons as a picture")

    what = "what requests not to be trained on touch, and the dataset without it"
    one = _command(commands, "optout", _optout, what, "starchat optout requests.txt dataset/ runs/nano-lora --output dataset-2/")
    one.add_argument("requests", help="accounts and repositories on lines, or an export of an opt-out repository's issues")
    one.add_argument("folders", nargs="+", metavar="FOLDER", help="datasets and runs to look at")
    one.add_argument("--former-names", metavar="FILE", help="pairs of names on lines: the former and the later one")
    one.add_argument("--output", metavar="FOLDER", help="write the dataset without these rows, and a receipt")
    one.add_argument("--overwrite", action="store_true", help="replace an earlier dataset in the output folder")

    what, example = "prove the laws on every row before training", "starchat check recipes/nano/lora.yaml --html check.html"
    one = _command(commands, "check", _check, what, example)
    one.add_argument("recipe", help="a recipe (YAML)")
    _overrides(one, overwrite=False)
    one.add_argument("--html", metavar="FILE", help="also write a page in which each token is coloured by whether it is trained")

    what, example = "predict memory, speed, time and money", "starchat plan recipes/starcoder2/sft.yaml --gpu h100 --count 8 --price 2.50"
    one = _command(commands, "plan", _plan, what, example)
    one.add_argument("recipe", help="a recipe (YAML)")
    _overrides(one, overwrite=False)
    one.add_argument("--gpu", help="a10, l4, a100-40, a100-80, h100, h100-pcie, h200 or rtx-4090")
    one.add_argument("--count", type=int, default=1, help="how many of them (default 1)")
    one.add_argument("--price", type=float, help="price of one GPU for one hour, in any currency; without it no money is told")
    one.add_argument("--measure", action="store_true", help="take two worst-case steps on this machine, and compare")

    one = _command(commands, "train", _train, "fine-tune in one process", "starchat train recipes/nano/lora.yaml num_train_epochs=5")
    one.add_argument("recipe", help="a recipe (YAML)")
    _overrides(one)

    one = _command(commands, "verify", _verify, "reload a run and compare it with what was trained", "starchat verify runs/nano-lora")
    one.add_argument("folder", metavar="RUN", help="a run folder")

    one = _command(
        commands, "merge", _merge, "merge an adapter into its base model", "starchat merge runs/nano-lora --output merged/nano-lora"
    )
    one.add_argument("folder", metavar="RUN", help="a finished run with an adapter")
    one.add_argument("--output", required=True, metavar="FOLDER", help="folder for the merged model")
    one.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="how weights are stored (default: as the base model's)")
    one.add_argument("--overwrite", action="store_true", help="replace an earlier merge in the output folder")

    one = _command(commands, "chat", _chat, "talk to a model in the terminal", "starchat chat runs/nano-lora")
    _model(one)
    _sampling(one)
    one.add_argument("--system", default="", help="a system prompt")

    one = _command(commands, "demo", _demo, "talk to a model in the browser", "starchat demo runs/nano-lora --port 7860")
    _model(one)
    one.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine only)")
    one.add_argument("--port", type=_port, default=7860, help="port to listen on; 0 takes a free one (default 7860)")
    one.add_argument("--open", action="store_true", help="open the page in a browser")

    one = _command(commands, "quickstart", _quickstart, "the whole road on the embedded base model", "starchat quickstart --demo")
    one.add_argument("--output", default="quickstart", help="folder for dataset and run (default quickstart)")
    one.add_argument("--demo", action="store_true", help="end with the chat page, open")
    one.add_argument("--port", type=_port, default=7860, help="the page's port; 0 takes a free one (default 7860)")
    one.add_argument("--overwrite", action="store_true", help="do it again if the folder holds an earlier one")
    return top


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], help: str, example: str) -> argparse.ArgumentParser:
    description = f"{help[0].upper()}{help[1:]}."
    one: argparse.ArgumentParser = commands.add_parser(name, help=help, description=description, epilog=f"example: {example}")
    one.set_defaults(run=run)
    one.add_argument("--json", action="store_true", help="print one JSON object")
    return one


def _overrides(one: argparse.ArgumentParser, overwrite: bool = True) -> None:
    one.add_argument("overrides", nargs="*", metavar="key=value", help="keys to set instead of the file's")
    if overwrite:
        one.add_argument("--overwrite", action="store_true", help="begin anew over what an earlier run of this program left in the output")


def _model(one: argparse.ArgumentParser) -> None:
    one.add_argument("model", help="nano, a run folder, a model folder, or a Hub id")
    one.add_argument("--template", help="chat template of a model that does not tell its own: starchat, chatml or native")


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number from 0 to 65535")
    return int(text)


def _sampling(one: argparse.ArgumentParser) -> None:
    from starchat.sampling import Sampling

    default = Sampling()
    one.add_argument("--temperature", type=float, default=default.temperature, help=f"0 is greedy (default {default.temperature})")
    one.add_argument("--top-p", type=float, default=default.top_p, help=f"nucleus (default {default.top_p})")
    one.add_argument("--max-new-tokens", type=int, default=default.max_new_tokens, help=f"longest reply (default {default.max_new_tokens})")


@contextlib.contextmanager
def _result_only(json_wanted: bool = False) -> Iterator[Callable[[Any, str], None]]:
    """Give a function that prints the result: JSON or text. What else is printed in the block, by libraries too, goes to standard error."""
    real = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        yield lambda value, text: print(json.dumps(value, ensure_ascii=False) if json_wanted else text, file=real)


def _prepare(options: argparse.Namespace) -> int:
    if options.repo is not None:
        return _prepare_repository(options)
    if alone := next((name for name in ("issues", "output", "model") if getattr(options, name) is not None), None):
        raise UserError(f"starchat prepare: --{alone} goes with --repo; a spec names its own")
    if options.spec is None:
        raise UserError("starchat prepare: name a spec, such as recipes/nano/data.yaml, or a repository with --repo PATH")
    from data_prep.prepare import prepare, summary

    with _result_only(options.json) as show:
        where = {"engine": _engine_of(options), "work": options.work}
        manifest = prepare(Path(options.spec), options.overrides, options.overwrite, workers=options.workers, **where)
        show(manifest, f"{summary(manifest)}\n{manifest['folder']}")
    return 0


def _engine(command: argparse.ArgumentParser) -> None:
    """Add the options that say where tasks run (docs/scale.md)."""
    group = command.add_argument_group("where it runs", "the bytes are the same everywhere; after a kill, the same command does the rest")
    group.add_argument("--engine", default="pool", metavar="NAME", help="pool: this machine (default); ray; slurm")
    group.add_argument("--work", metavar="FOLDER", help="where what is done lies until all is (default: beside the output)")
    group.add_argument("--address", metavar="HOST:PORT", help="of a Ray cluster; auto: the one of this machine; local: one of this process")
    group.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help="for sbatch, such as --sbatch=--mem=8G")
    group.add_argument("--no-submit", action="store_true", help="tell the sbatch command instead of running it")


def _engine_of(options: argparse.Namespace) -> Any:
    from data_prep.engines import Engine

    stated = [name for name, value in (("address", options.address), ("sbatch", options.sbatch), ("no-submit", options.no_submit)) if value]
    meant = {"address": "ray", "sbatch": "slurm", "no-submit": "slurm"}
    if wrong := next((name for name in stated if options.engine != meant[name]), None):
        raise UserError(f"starchat prepare: --{wrong} is about --engine {meant[wrong]}; the engine is {options.engine}")
    placed = (options.engine, options.workers, options.address, tuple(options.sbatch))
    return Engine(*placed, submit=not options.no_submit, stop=options.engine == "pool")


def _prepare_repository(options: argparse.Namespace) -> int:
    if options.spec is not None:
        raise UserError(f"starchat prepare: --repo writes a spec of its own; leave {options.spec} out, or run it without --repo")
    if options.engine != "pool" or options.work or options.address or options.sbatch or options.no_submit:
        raise UserError("starchat prepare: --repo works on this machine; prepare the spec that it writes with --engine and --work")
    from data_prep.assistant import make_assistant, render_text

    with _result_only(options.json) as show:
        result = make_assistant(
            *(options.repo, options.issues, options.output or "assistant", options.model or "nano"),
            *(options.overwrite, options.workers),
        )
        show(result, render_text(result))
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from data_prep.history import history_of, render_history
    from data_prep.inspect import inspect, plot, render_text
    from data_prep.try_filters import render_tried, try_filters

    with _result_only(options.json) as show:
        if options.id:
            history = history_of(Path(options.dataset), options.id, options.samples)
            show(history, render_history(history))
            return 0
        if options.filter:
            tried = try_filters(Path(options.dataset), options.filter, options.samples)
            show(tried, render_tried(tried))
            return 0
        report = inspect(Path(options.dataset), options.samples, options.reason)
        if options.plot:
            plot(Path(options.dataset), Path(options.plot))
        show(report, render_text(report))
    return 0


def _optout(options: argparse.Namespace) -> int:
    from data_prep.opt_out import open_opt_outs
    from data_prep.unlearn import UNKNOWN, find_touched, render_touched, write_without

    with _result_only(options.json) as show:
        rules = {"lists": [options.requests], "former_names": options.former_names}
        report = find_touched(open_opt_outs(rules, "optout"), list(map(Path, options.folders)))
        text = render_touched(report)
        if options.output:
            report["written"] = write_without(report, Path(options.output), options.overwrite)["folder"]
            text += f"\n{report['written']}"
        show(report, text)
    return 1 if any(run["state"] == UNKNOWN for run in report["runs"]) else 0


def _check(options: argparse.Namespace) -> int:
    from starchat.arguments import require_arguments
    from starchat.hub import base_folder, require_loadable, start_folder
    from starchat.preflight import preflight
    from starchat.recipe import load_recipe
    from starchat.tokens import load_tokens
    from starchat.train import make_model
    from starchat.xray import render_text, write_html

    terminal = sys.stdout
    with _result_only(options.json) as show:
        recipe = load_recipe(options.recipe, options.overrides)
        require_arguments(recipe)
        if not recipe.from_nothing:
            require_loadable(base_folder(recipe.model))
        report, rows = preflight(recipe, make_model)
        if options.html:
            tokens = load_tokens(start_folder(recipe.model), recipe.dialogue_template)
            write_html(options.html, report, rows["train"], tokens)
        show(report.to_json(), render_text(report, terminal))
    return 0 if report.ok else 1


def _plan(options: argparse.Namespace) -> int:
    from starchat.gpus import find_gpu
    from starchat.recipe import load_recipe

    gpu = find_gpu(options.gpu) if options.gpu else None
    if gpu is None and not options.measure:
        raise UserError("starchat plan: name a card with --gpu, such as --gpu h100 --count 8, or try this machine with --measure")
    with _result_only(options.json) as show:
        recipe = load_recipe(options.recipe, options.overrides)
        if gpu is not None:
            from starchat.plan import plan_recipe
            from starchat.plan_text import render_plan
            from starchat.speed import ASSUMPTIONS

            plan = plan_recipe(recipe, gpu, options.count, options.price)
            show(plan.to_json(), render_plan(plan, options.recipe, ASSUMPTIONS))
            return 0 if plan.best else 1
        from starchat.trial import compare, render_comparison

        found = compare(options.recipe, options.overrides)
        show(found, render_comparison(found))
        return 0 if found["ok"] else 1


def _train(options: argparse.Namespace) -> int:
    _with_large_pages()
    from starchat.train import train

    with _result_only(options.json) as show:
        result = train(options.recipe, options.overrides, options.overwrite)
        show(result, result["folder"])
    return 0 if result["ok"] else 1


def _verify(options: argparse.Namespace) -> int:
    from starchat.verify import render, verify

    with _result_only(options.json) as show:
        result = verify(options.folder)
        show(result, render(result))
    return 0 if result["ok"] else 1


def _merge(options: argparse.Namespace) -> int:
    from starchat.merge import merge, render

    with _result_only(options.json) as show:
        result = merge(options.folder, options.output, options.dtype, options.overwrite)
        show(result, render(result))
    return 0 if result["ok"] else 1


def _chat(options: argparse.Namespace) -> int:
    from starchat.chat import run_chat
    from starchat.generate import load_assistant
    from starchat.sampling import Sampling

    sampling = Sampling(max_new_tokens=options.max_new_tokens, temperature=options.temperature, top_p=options.top_p)
    with _result_only():
        assistant = load_assistant(options.model, options.template)
    run_chat(assistant, sampling, options.system)
    return 0


def _demo(options: argparse.Namespace) -> int:
    from demo.app import serve
    from starchat.generate import load_assistant

    serve(load_assistant(options.model, options.template), host=options.host, port=options.port, open_browser=options.open)
    return 0


def _quickstart(options: argparse.Namespace) -> int:
    from starchat.quickstart import quickstart

    with _result_only(options.json) as show:
        result = quickstart(Path(options.output), overwrite=options.overwrite)
        show(result, result["table"])
    if result["ok"] and options.demo:
        from demo.app import serve
        from starchat.generate import load_assistant

        serve(load_assistant(result["run"]), port=options.port, open_browser=True)
    return 0 if result["ok"] else 1


def _with_large_pages() -> None:
    """Start this process anew with glibc's allocator set for training on a CPU, unless it is or someone chose otherwise."""
    from starchat.launch import allocator_environment

    wanted = allocator_environment(os.environ)
    if wanted:
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, "-m", "starchat", *sys.argv[1:]], {**os.environ, **wanted})


if __name__ == "__main__":
    sys.exit(main())
