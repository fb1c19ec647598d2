"""Trains a small byte-level tokenizer with SmolLM2's structure on a warehouse folder's texts."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm

from eval.command_line import command_line
from smolrgpt_jax.data.chat import IMAGE_TOKEN, MASK_DEPTH_TOKEN, MASK_RGB_TOKEN, ChatTokenizer
from smolrgpt_jax.data.records import IMAGE, MASK
from smolrgpt_jax.errors import DataError, told
from smolrgpt_jax.files import check_empty, read_json

# SmolLM2's special tokens, in the order of their ids 0 to 16.
SPECIAL_TOKENS = (
    "<|endoftext|> <|im_start|> <|im_end|> <repo_name> <reponame> <file_sep> <filename> <gh_stars> <issue_start> "
    "<issue_comment> <issue_closed> <jupyter_start> <jupyter_text> <jupyter_code> <jupyter_output> <jupyter_script> "
    "<empty_output>"
).split()
EXTRA_TOKENS = (IMAGE_TOKEN, MASK_RGB_TOKEN, MASK_DEPTH_TOKEN)
SMALLEST = len(SPECIAL_TOKENS) + 256 + len(EXTRA_TOKENS)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> ChatTokenizer:
    """Trains a byte-level BPE whose tokenizer.json differs from SmolLM2's in the merges only.

    texts: pieces between special tokens; the same pieces always give the same tokenizer. vocab_size: with the special and the extra
    tokens. Raises ValueError if the size has no room for the bytes, or the texts have too few pairs to fill it.
    """
    from transformers import PreTrainedTokenizerFast

    if vocab_size < SMALLEST:
        raise ValueError(f"a vocabulary of {vocab_size} is too small, bytes and special tokens alone take {SMALLEST}")
    tokenizer = Tokenizer(models.BPE())
    digits, byte_level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS]
    begin = {"special_tokens": special, "initial_alphabet": sorted(pre_tokenizers.ByteLevel.alphabet())}
    trainer = trainers.BpeTrainer(vocab_size=vocab_size - len(EXTRA_TOKENS), show_progress=False, **begin)
    tokenizer.train_from_iterator(texts, trainer)
    roles = {"bos": "<|im_start|>", "eos": "<|im_end|>", "unk": "<|endoftext|>", "pad": "<|im_end|>"}
    settings = {f"{role}_token": token for role, token in roles.items()}
    settings |= {"model_max_length": 8192, "clean_up_tokenization_spaces": False}
    trained = ChatTokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer, **settings))
    if trained.vocab_size != vocab_size:
        raise ValueError(f"the texts give only {trained.vocab_size} tokens of the {vocab_size} asked for")
    return trained


def pieces(files: Iterable[Path]) -> Iterator[str]:
    """Yields the texts of chat-style JSON files, cut at special tokens; raises DataError for another file."""
    for file in files:
        try:
            conversations = [[turn["value"] for turn in record["conversations"]] for record in read_json(file)]
        except (KeyError, TypeError) as error:
            raise DataError(f"{file}: is not a list of records with conversations") from error
        for turns in conversations:
            yield "user\n"
            yield from (piece for piece in turns[0].replace(IMAGE, "").strip().split(MASK) if piece)
            for answer in turns[1:]:
                yield "assistant\n"
                yield answer.strip()
            yield "\n"


@told()
def main() -> None:
    args = command_line("launch.train_tokenizer", __doc__).parse_args()
    files = sorted(args.data.glob("train*.json"))
    if not files:
        raise DataError(f"{args.data} holds no train*.json")
    check_empty(args.out)
    names = ", ".join(file.name for file in files)
    print(f"training a tokenizer of {args.vocab_size} tokens on {names} of {args.data}, writing it to {args.out}")
    with tqdm(pieces(files), unit=" pieces") as texts:
        tokenizer = train_tokenizer(texts, args.vocab_size)
    tokenizer.save(args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
