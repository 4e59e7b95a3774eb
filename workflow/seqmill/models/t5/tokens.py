"""From amino acids to the tokens of protein T5s, by the files of their tokenizers. Imports no torch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from seqmill.errors import UserError, first_line
from seqmill.files import read_json
from seqmill.models.t5.config import Config
from seqmill.models.tokenizers import LetterTokenizer

PADDING, END, UNKNOWN = "<pad>", "</s>", "<unk>"
# The order of ProtT5's spiece.model, for folders without one; ProstT5 and Ankh begin alike.
TOKENS = [PADDING, END, UNKNOWN, *"ALGVSREDTIPKFQNYMHWCXBOUZ"]
# SentencePiece's mark of a blank: a letter with a blank before it is another piece than the letter alone.
BLANK = "\u2581"
LETTERS = "ACDEFGHIKLMNPQRSTVWYX"
# As the authors of ProtT5 have it (their README's `[UZOB]`): these letters were too rare in training.
ALIASES = {"U": "X", "Z": "X", "O": "X", "B": "X"}

# Tokens that say what follows: to ProstT5, that it is amino acids and not 3Di; to Ankh3, that embeddings are wanted.
AMINO_ACIDS, UNDERSTANDING = "<AA2fold>", "[NLU]"
# ProstT5's number of tokens; the last is `<AA2fold>`.
PROSTT5_VOCABULARY = 150
# Those of ProtT5, Ankh and ProstT5, whose letters have the same ids.
KNOWN_VOCABULARIES = (128, 144, PROSTT5_VOCABULARY)

# The files that have the letters' ids: either will do.
LETTER_FILES = ("spiece.model", "tokenizer.json")


def tokenizer(folder: Path, config: Config) -> LetterTokenizer:
    """A token per amino acid and `</s>` after each sequence; before it only what ProstT5 and Ankh3 want.

    Amino acids only: ProstT5's 3Di letters, which are lower case, have no tokens here.

    Raises:
        UserError: a file of the tokenizer is damaged, or lacks a token.
    """
    ids = _read(folder, config.vocab_size)
    if config.vocab_size == PROSTT5_VOCABULARY:
        ids.setdefault(AMINO_ACIDS, PROSTT5_VOCABULARY - 1)
    before = [token for token in (AMINO_ACIDS, UNDERSTANDING) if token in ids]
    wanted: dict[str, Any] = {letter: ids.get(BLANK + letter, ids.get(letter)) for letter in LETTERS}
    wanted |= {token: ids.get(token) for token in (PADDING, END, UNKNOWN, *before)}
    vocabulary = [""] * config.vocab_size
    for token, token_id in wanted.items():
        if type(token_id) is not int or not 0 <= token_id < config.vocab_size or vocabulary[token_id]:
            raise UserError(
                f"model {folder}: its tokenizer's files have no proper number for {token}; get them again, and all of them"
            )
        vocabulary[token_id] = token
    return LetterTokenizer(vocabulary, UNKNOWN, PADDING, before, [END], ALIASES)


def _read(folder: Path, vocab_size: int) -> dict[str, Any]:
    """Tokens to their ids, as the files of a folder have them; ProtT5's where none has the letters."""
    ids: dict[str, Any] = {}
    for name, read in READERS.items():
        if (folder / name).is_file():
            # What is read first holds: the others repeat it, and SentencePiece's own file is the original.
            ids = _guarded(folder / name, read) | ids
    if any((folder / name).is_file() for name in LETTER_FILES):
        return ids
    if vocab_size not in KNOWN_VOCABULARIES:
        raise UserError(f"model {folder}: has neither {' nor '.join(LETTER_FILES)}; complete the folder")
    return {token: token_id for token_id, token in enumerate(TOKENS)} | ids


def _guarded(path: Path, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    try:
        return read(path)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"model {path.parent}: its {path.name} cannot be used ({first_line(error)[:200]}); get it again"
        ) from None


def _spiece(path: Path) -> dict[str, Any]:
    # Only here: planning and sharding need no tokens.
    from sentencepiece import SentencePieceProcessor

    content = path.read_bytes()
    if not content:
        raise ValueError("it is empty")
    processor = SentencePieceProcessor(model_proto=content)
    return {processor.id_to_piece(token_id): token_id for token_id in range(len(processor))}


def _tokenizer_json(path: Path) -> dict[str, Any]:
    """Of the `tokenizers` library: a unigram model lists its pieces with their scores, others map them to ids."""
    content = read_json(path)
    pieces = content["model"]["vocab"]
    ids = dict(pieces) if isinstance(pieces, Mapping) else {piece: n for n, (piece, _) in enumerate(pieces)}
    return ids | {token["content"]: token["id"] for token in content.get("added_tokens", [])}


def _added_tokens(path: Path) -> dict[str, Any]:
    return dict(read_json(path).items())


def _tokenizer_config(path: Path) -> dict[str, Any]:
    added = read_json(path).get("added_tokens_decoder", {})
    return {token["content"]: int(token_id) for token_id, token in added.items()}


READERS = {
    "spiece.model": _spiece,
    "tokenizer.json": _tokenizer_json,
    "added_tokens.json": _added_tokens,
    "tokenizer_config.json": _tokenizer_config,
}
# Names of all files that decide the tokens.
FILES = tuple(READERS)
