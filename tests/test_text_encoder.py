"""The sentence encoder against the transformers library, on the installed MiniLM weights."""

from __future__ import annotations

import pytest
import torch

from refavs_rt.config import EDGE
from refavs_rt.model.text import Int8Embedding, Int8Linear, TextEncoder, minilm_folder


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    encoder = TextEncoder(EDGE)
    encoder.load_minilm(minilm_folder())
    return encoder.eval()


def test_equals_transformers_bert_with_the_same_weights(encoder: TextEncoder) -> None:
    """transformers' BertModel, given our dequantised weights, computes the same features."""
    from transformers import BertConfig, BertModel

    theirs = BertModel(BertConfig.from_pretrained(minilm_folder()), add_pooling_layer=False).eval()
    state = theirs.state_dict()
    names = {
        "attention.self.query": "q",
        "attention.self.key": "k",
        "attention.self.value": "v",
        "attention.output.dense": "out",
        "intermediate.dense": "up",
        "output.dense": "down",
        "attention.output.LayerNorm": "norm_attention",
        "output.LayerNorm": "norm_feed_forward",
    }
    for index, layer in enumerate(encoder.layers):
        for their_name, our_name in names.items():
            part = getattr(layer, our_name)
            weight = part.weight * part.scale if isinstance(part, Int8Linear) else part.weight
            state[f"encoder.layer.{index}.{their_name}.weight"] = weight.detach()
            state[f"encoder.layer.{index}.{their_name}.bias"] = part.bias.detach()
    state["embeddings.word_embeddings.weight"] = encoder.word.weight * encoder.word.scale
    state["embeddings.position_embeddings.weight"] = encoder.position.weight * encoder.position.scale
    state["embeddings.token_type_embeddings.weight"][0] = encoder.token_type
    state["embeddings.LayerNorm.weight"] = encoder.norm.weight.detach()
    state["embeddings.LayerNorm.bias"] = encoder.norm.bias.detach()
    theirs.load_state_dict(state)

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1000, 20_000, (5, 25), generator=generator)
    mask = torch.arange(25) < torch.tensor([25, 1, 7, 13, 24])[:, None]
    with torch.no_grad():
        ours = encoder(ids, mask)
        reference = theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(ours[mask], reference[mask], atol=2e-5, rtol=1e-5)


def test_int8_keeps_the_meaning_of_sentences(encoder: TextEncoder) -> None:
    """Quantised features stay close to those of the published float weights."""
    from tokenizers import Tokenizer
    from transformers import BertModel

    theirs = BertModel.from_pretrained(minilm_folder(), add_pooling_layer=False).eval()
    tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    tokenizer.enable_padding(length=25)
    tokenizer.enable_truncation(25)
    rows = tokenizer.encode_batch(
        ["The dog that barks after the guitar starts.", "a violin", "The first object to make a sound"]
    )
    ids = torch.tensor([row.ids for row in rows])
    mask = torch.tensor([row.attention_mask for row in rows]).bool()
    with torch.no_grad():
        ours, reference = (
            encoder(ids, mask),
            theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state,
        )
    cosine = torch.nn.functional.cosine_similarity(ours[mask], reference[mask], dim=-1)
    assert cosine.min() > 0.99


@pytest.mark.parametrize("shape", [(3, 5), (17, 1), (384, 96)])
def test_quantised_rows_are_within_half_a_level(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape) * torch.logspace(-3, 2, shape[0])[:, None]
    linear = Int8Linear(shape[1], shape[0])
    linear.quantise(weight, torch.zeros(shape[0]))
    half_level = weight.abs().amax(dim=1, keepdim=True) / 127 / 2
    assert ((linear.weight * linear.scale - weight).abs() <= half_level * 1.001).all()
    table = Int8Embedding(*shape)
    table.quantise(weight)
    rows = torch.tensor([0, shape[0] - 1])
    torch.testing.assert_close(table(rows), (linear.weight * linear.scale)[rows])
