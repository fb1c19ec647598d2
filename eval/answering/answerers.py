"""Who answers: a checkpoint here, an exported folder, `smolrgpt serve`, or any other model behind a server, as the command line says."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from eval.answering.asking import FINGERPRINT, Answered, Answerer
from eval.answering.from_export import Exported
from eval.answering.other_models import PROMPT, OtherModel, Prompt
from eval.answering.served import Served
from eval.command_line import typed_command
from eval.reading.chat_server import ChatServer
from smolrgpt_jax.data.records import BadRecords, Picture

_OTHERS = ("model", "with_depth", "no_picture", "prompt", "request")  # options that other models alone take


def check_answerer(parser: argparse.ArgumentParser, args: argparse.Namespace) -> str:
    """What people are told is asked; ends the command where the options name none, or several.

    args: of [answerer] in options.toml.
    """
    other, given_here = args.answerer == "openai", [args.checkpoint, args.exported, args.served]
    if given := [f"--{name}" for name in _OTHERS if getattr(args, name) and not other]:
        parser.error(f"{given[0]} is of --answerer openai")
    if other:
        if any(given_here):
            parser.error("--answerer openai asks --server, give none of --checkpoint, --exported and --served")
        if not (args.server and args.model):
            parser.error("--answerer openai needs --server URL and --model NAME")
        if args.server_workers < 1:
            parser.error("--server_workers is at least 1")
    elif args.exported and args.dtype != parser.get_default("dtype"):
        parser.error("--dtype is of --checkpoint: an export computes in what it was exported in")
    elif sum(map(bool, given_here)) != 1:
        parser.error("give one of --checkpoint, --exported and --served, or --answerer openai")
    return f"{args.model} at {args.server}" if other else str(next(filter(None, given_here)))


def is_elsewhere(args: argparse.Namespace) -> bool:
    """Whether a server or an exported folder answers."""
    return bool(args.served or args.exported) or args.answerer == "openai"


def elsewhere(args: argparse.Namespace, module: str, bad: BadRecords, **details: Any) -> tuple[Answerer, dict]:
    """How a server or an exported folder is asked, and what the report says of it; details: what it says besides.

    Raises ServerError where nothing answers there, and as `Exported`.
    """
    ask: Callable[..., list[Answered]]
    if args.exported:
        exported = Exported(args.exported)
        ask, at_once = exported.answer, 1
        about = {"checkpoint": args.exported, "digest of the export": exported.digest}
    elif args.served:
        served = Served(args.served, args.server_key_in_clear)
        ask, at_once = served.answer, args.batch_size
        about = {"checkpoint": args.served, FINGERPRINT: served.about.get("fingerprint")}
    else:
        how = {"retries": args.server_retries, "timeout": args.server_timeout}
        server = ChatServer(args.server, "--answerer openai", **how, key_in_clear=args.server_key_in_clear)
        pictures = {"with_depth": args.with_depth, "no_picture": args.no_picture}
        other = OtherModel(
            server, args.model, Prompt.read(args.prompt or PROMPT), **pictures, further=args.request or {}
        )
        server.check()
        ask, at_once = other.answer, args.server_workers
        about = {"checkpoint": args.model, **other.details}

    def answer(asked: Sequence[Picture]) -> Sequence[Answered]:
        return ask(asked, args.out, at_once, args.max_new_tokens, bad)

    return answer, {"command": typed_command(module), **about, **details}
