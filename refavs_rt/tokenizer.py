"""Sentences to token ids, by the tokenizer.json of a bundle."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding
from tokenizers import Tokenizer as HfTokenizer

_PAD_TOKENS = ("[PAD]", "<pad>")
_ANY_TOKEN = 2**31


class SentenceCutWarning(UserWarning):
    """A sentence was longer than the model reads; the message says what was kept."""


class TokenizerError(ValueError):
    """A tokenizer.json that is none, or that fails on a sentence."""


class Tokenizer:
    """Encodes sentences to a fixed length L. Lower-casing and the like are settings of the tokenizer.json.

    Args:
        data: bytes of a tokenizer.json (Hugging Face tokenizers). Its own padding and truncation are not used.
        length: L.
        vocabulary: how many tokens the network knows; None: whatever the tokenizer gives is taken.

    Raises:
        TokenizerError: the bytes are no tokenizer, or it has no padding token.
    """

    def __init__(self, data: bytes, length: int, vocabulary: int | None = None) -> None:
        with _as_tokenizer_error("not a tokenizer"):
            self._tokenizer = HfTokenizer.from_buffer(data)
            self._pad_id = _pad_id(data, self._tokenizer)
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
        self.length = length
        self.vocabulary = _ANY_TOKEN if vocabulary is None else vocabulary

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Token ids [N, L] int64 and their mask [N, L] bool, False on padding.

        A sentence of more than L tokens is cut with a `SentenceCutWarning`; its last token stays the closing one.

        Raises:
            TypeError: a sentence is not a str, or `texts` is one str.
            ValueError: a sentence is empty, blank or not text.
            TokenizerError: the tokenizer fails on it, or gives a token that the network does not know.
        """
        if isinstance(texts, str):
            raise TypeError("give a list of sentences, not one string")
        rows = [self._tokens(text) for text in texts]
        for each in (self._pad_id, *chain(*rows)):
            if not 0 <= each < self.vocabulary:  # a GPU would read some other memory in its place
                raise TokenizerError(f"token {each} is none of the {self.vocabulary} that the network knows")
        ids = np.full((len(texts), self.length), self._pad_id, np.int64)
        mask = np.zeros((len(texts), self.length), np.bool_)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        return ids, mask

    def _tokens(self, text: str) -> list[int]:
        if not isinstance(text, str):
            raise TypeError(f"a sentence must be a str, not {type(text).__name__}: {text!r}")
        if not text.strip():
            raise ValueError("a sentence must not be empty")
        if any(
            "\ud800" <= character <= "\udfff" for character in text
        ):  # undecodable bytes of a command line
            raise ValueError(f"the sentence {text!r} is not valid text")
        with _as_tokenizer_error("the tokenizer fails"):
            encoding = self._tokenizer.encode(text)
        if all(encoding.special_tokens_mask):
            raise ValueError(f"the sentence {text!r} has no word to read")
        if len(encoding.ids) > self.length:
            return self._cut(text, encoding)
        return encoding.ids

    def _cut(self, text: str, encoding: Encoding) -> list[int]:
        """The first L tokens, of which the last is the closing token if the sentence had one."""
        closing = int(encoding.special_tokens_mask[-1])
        end = self.length - closing
        kept = text[: encoding.offsets[end - 1][1]].strip()
        message = f"the sentence {_shorten(text)!r} has {len(encoding.ids)} tokens, the model reads {self.length}: kept {kept!r}"
        warnings.warn(message, SentenceCutWarning, stacklevel=2)
        return encoding.ids[:end] + encoding.ids[len(encoding.ids) - closing :]


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


@contextlib.contextmanager
def _as_tokenizer_error(what: str) -> Iterator[None]:
    """The library raises bare Exception, and where it panics what is no Exception at all."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise TokenizerError(f"{what}: {_shorten(said, 300)!r}") from error


def _pad_id(data: bytes, tokenizer: HfTokenizer) -> int:
    padding = json.loads(data).get("padding")
    if padding:
        return int(padding["pad_id"])
    for token in _PAD_TOKENS:
        pad_id = tokenizer.token_to_id(token)
        if pad_id is not None:
            return pad_id
    raise ValueError("it has no padding token")
