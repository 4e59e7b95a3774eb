"""DNABERT's tokens: pairs of pieces merged again and again (BPE), as the model's tokenizer.json has it. Imports no torch."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path

import numpy as np

from seqmill.errors import UserError, first_line
from seqmill.inputs.sequences import Sequences
from seqmill.models.dnabert.config import Config
from seqmill.models.tokenizers import write_special

FILE = "tokenizer.json"
BEFORE, AFTER, UNKNOWN, PADDING = "[CLS]", "[SEP]", "[UNK]", "[PAD]"
# Letters that are handed over at once: the library takes some 40 bytes for each.
CHUNK_LETTERS = 2**22


class BytePairTokenizer:
    """Pieces of one or several bases between `[CLS]` and `[SEP]`. Implements `family.Tokenizer`.

    Args:
        folder: of the model.
        config: the sizes of the model.

    Raises:
        UserError: there is no tokenizer.json, a damaged one, or one of another model.
    """

    dtype = np.dtype(np.int16)
    leading, trailing = 1, 1
    single_letters = False

    def __init__(self, folder: Path, config: Config):
        # Only here: who asks for the alphabet need not wait for it.
        from tokenizers import Tokenizer

        self.path = folder / FILE
        if not self.path.is_file():
            raise UserError(f"{self.path}: is missing; its pieces of sequence are part of the model, so get it too")
        try:
            self.library = Tokenizer.from_file(str(self.path))
        except Exception as error:  # the library has nothing more special
            raise UserError(f"{self.path}: cannot be read ({first_line(error)}); get it again") from None
        # As released, it would cut or fill every sequence to 2,000 tokens.
        self.library.no_truncation()
        self.library.no_padding()
        vocabulary = self.library.get_vocab(with_added_tokens=True)
        special = [vocabulary.get(token) for token in (BEFORE, AFTER, UNKNOWN, PADDING)]
        if None in special or max(vocabulary.values()) >= min(config.vocab_size, np.iinfo(self.dtype).max):
            raise UserError(f"{self.path}: does not belong to this model; get both again")
        self.before, self.after, unknown, self.padding = special
        # Letters of each token. Each unknown letter is a token of its own.
        self.lengths = np.zeros(config.vocab_size, dtype=np.int32)
        for piece, token in vocabulary.items():
            self.lengths[token] = len(piece)
        self.lengths[unknown] = 1

    def tokens(self, sequences: Sequences) -> "BytePairTokens":
        """See `family.Tokenizer.tokens`; works on in the background."""
        return BytePairTokens(self, sequences)

    def encode(self, sequences: Sequences) -> tuple[np.ndarray, np.ndarray]:
        """All tokens but the special ones, end to end in `dtype`, and (D,) int64 how many each sequence has.

        Raises:
            UserError: the tokens of a sequence do not add up to its letters.
        """
        ids, counts = [np.empty(0, self.dtype)], [np.empty(0, np.int64)]
        for texts in _chunks(sequences):
            found = [piece.ids for piece in self.library.encode_batch_fast(texts, add_special_tokens=False)]
            sizes = np.array([len(tokens) for tokens in found], dtype=np.int64)
            counts.append(sizes)
            ids.append(np.fromiter(itertools.chain.from_iterable(found), self.dtype, int(sizes.sum())))
            ends = np.concatenate([[0], np.cumsum(self.lengths[ids[-1]])])[np.concatenate([[0], np.cumsum(sizes)])]
            if (np.diff(ends) != [len(text) for text in texts]).any():
                raise UserError(f"{self.path}: its tokens do not add up to the letters of a sequence; get it again")
        return np.concatenate(ids), np.concatenate(counts)


def _chunks(sequences: Sequences) -> Iterator[list[str]]:
    """The sequences in the order of computing, some at a time."""
    texts, size = [], 0
    for start, stop in itertools.pairwise(sequences.offsets.tolist()):
        texts.append(sequences.letters[start:stop].tobytes().decode())
        size += stop - start
        if size >= CHUNK_LETTERS:
            yield texts
            texts, size = [], 0
    if texts:
        yield texts


class BytePairTokens:
    """The tokens of a shard, made once by all cores while the model is loaded. Implements `family.Tokens`.

    How many tokens a sequence has cannot be known without making them, and batches are planned by that.
    """

    def __init__(self, tokenizer: BytePairTokenizer, sequences: Sequences):
        self.tokenizer = tokenizer
        self._made: Future[tuple[np.ndarray, np.ndarray]] = Future()
        # A daemon: a job that fails meanwhile does not wait for it.
        threading.Thread(target=self._make, args=(sequences,), name="tokens", daemon=True).start()

    def _make(self, sequences: Sequences) -> None:
        try:
            self._made.set_result(self.tokenizer.encode(sequences))
        except BaseException as error:  # raised where the tokens are wanted
            self._made.set_exception(error)

    @cached_property
    def counts(self) -> np.ndarray:
        """(D,) int64, tokens per sequence, special ones included; waits for them."""
        return self._made.result()[1] + self.tokenizer.leading + self.tokenizer.trailing

    @cached_property
    def _ids(self) -> np.ndarray:
        return self._made.result()[0]

    @cached_property
    def _offsets(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self._made.result()[1])])

    def _content(self, first: int, last: int) -> np.ndarray:
        return self._ids[self._offsets[first] : self._offsets[last]]

    def write(self, first: int, last: int, out: np.ndarray) -> None:
        """See `family.Tokens.write`."""
        content = write_special(out, self.counts[first:last], [self.tokenizer.before], [self.tokenizer.after])
        out[content] = self._content(first, last)

    def starts(self, first: int, last: int) -> np.ndarray:
        """See `family.Tokens.starts`."""
        lengths = self.tokenizer.lengths[self._content(first, last)]
        ends = np.cumsum(lengths)
        offsets = self._offsets[first : last + 1] - self._offsets[first]
        before = np.concatenate([[0], ends])[offsets[:-1]]
        return (ends - lengths - np.repeat(before, np.diff(offsets))).astype(np.int32)
