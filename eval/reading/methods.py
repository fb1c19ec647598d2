"""Ways from an answer to its normalised value, by name.

    rules     eval.reading.rules: regular expressions; no server, no model, the same every time
    router    as the published pipeline: Longformer classifiers say which kind of value it is, rules read it
    server    a language model behind an OpenAI-compatible server, see eval.reading.server
    closing   the value that the model itself wrote behind its answer, where it was trained to
    vote      the value that several answers to the question elect, see eval.reading.ballots

A method is a function from predictions to values, so that another one is an entry of `build_methods`.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from eval.reading.ballots import read_by_vote
from eval.reading.rules import Answer, normalized_answer, parse_normalized, question_category
from eval.reading.server import AnswerServer
from smolrgpt_jax.errors import DataError

# Items with id, category ("" where it is not published), question and answer -> one value for each.
Method = Callable[[Sequence[Mapping]], Sequence[Answer]]


def read_by_rules(items: Sequence[Mapping]) -> list[Answer]:
    """See `eval.reading.rules.normalized_answer`."""
    return [normalized_answer(item["category"], item["question"], item["answer"]) for item in items]


RULES: Mapping[str, Method] = {"rules": read_by_rules}


def read_closings(items: Sequence[Mapping]) -> list[Answer]:
    """The value each item holds as "closing", None where its answer was not closed; DataError where no item has one."""
    if all(item.get("closing") is None for item in items):
        raise DataError("no answer is closed with its value: the model was not trained to, or not asked to")
    categories = [item["category"] or question_category(item["question"]) for item in items]
    return [category and parse_normalized(category, item.get("closing")) for category, item in zip(categories, items)]


def routed_answer(question_type: str, answer_type: str, question: str, answer: str) -> Answer:
    """The value where both routers agree; else, as in the published pipeline, "left" or 1 by the question's type.

    Where they agree the rules read the value, in place of the published pipeline's language model.
    """
    if question_type != answer_type:
        return "left" if question_type == "left_right" else 1
    return normalized_answer(question_type, question, answer)


def router_method(folders: Sequence[Path]) -> Method:
    """By one or two folders of `launch.train_router` or Hugging Face, of questions and, to check their kind, of answers.

    Published categories are taken no notice of, but a value that is none of its question's category is None. Raises
    ValueError for a folder that holds no router, or not the one wanted.
    """
    # Imported late: the other methods need no JAX.
    from smolrgpt_jax.router.classify import load_router

    routers = [load_router(folder) for folder in folders]
    for folder, router, kind in zip(folders, routers, ("question", "answer")):
        if router.kind not in ("", kind):
            raise DataError(f"{folder} is a router of {router.kind}s, expected one of {kind}s")

    def read(items: Sequence[Mapping]) -> list[Answer]:
        texts = [[item[field] for item in items] for field in ("question", "answer")]
        routed = [router.categories(column, progress=True) for router, column in zip(routers, texts, strict=False)]
        values = []
        for item, asked, answered in zip(items, routed[0], routed[-1]):
            value = routed_answer(asked, answered, item["question"], item["answer"])
            values.append(parse_normalized(item["category"], value) if item["category"] else value)
        return values

    return read


def server_method(server: AnswerServer) -> Method:
    """Asks a server; raises ServerError at once if it cannot be reached."""
    server.check()

    def read(items: Sequence[Mapping]) -> list[Answer]:
        values = server.values(items)
        if server.unusable:
            print(
                f"{len(server.unusable)} answers got no reply of {server.url} that follows the schema in "
                f"{server.retries + 1} tries and count as unreadable; the first reply: {server.unusable[0]}"
            )
        return values

    return read


def build_methods(args: argparse.Namespace) -> dict[str, Method]:
    """The methods of the command line in its order; args: of [methods] in options.toml, and out, the folder of the results.

    Raises ValueError where an option is missing, a router cannot be loaded or the server cannot be reached.
    """
    if "router" in args.answers and len(args.router) not in (1, 2):
        raise ValueError("--answers router needs --router DIR, one or two folders")
    if "server" in args.answers and not (args.server and args.server_model):
        raise ValueError("--answers server needs --server URL and --server_model NAME")
    cache = args.server_cache or args.out / "server_answers"
    asked = (args.server, args.server_model, cache, args.server_workers, args.server_retries, args.server_timeout)
    asked += (args.server_key_in_clear,)
    makers: Mapping[str, Callable[[], Method]] = {
        "rules": lambda: read_by_rules,
        "closing": lambda: read_closings,
        "vote": lambda: read_by_vote,
        "router": lambda: router_method(args.router),
        "server": lambda: server_method(AnswerServer(*asked)),
    }
    return {name: makers[name]() for name in args.answers}


def read_values(items: Sequence[Mapping], methods: Mapping[str, Method]) -> list[dict]:
    """The items with normalized_answer, the first method's value, and of several methods values, before their truth."""
    columns = [method(items) for method in methods.values()]
    predictions = []
    for item, *values in zip(items, *columns, strict=True):
        read = {"normalized_answer": values[0]}
        if len(values) > 1:
            read["values"] = dict(zip(methods, values))
        predictions.append({**{key: item[key] for key in item if key != "truth"}, **read, "truth": item["truth"]})
    return predictions
