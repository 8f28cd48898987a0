"""DistilRoBERTa from transformers as a frozen sentence encoder, under transformers' own parameter names.

Architecture: RoBERTa (arXiv 1907.11692), distilled to six layers (arXiv 1910.01108).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from refavs_rt.config import ModelConfig

from .hub import hub_folder
from .load_report import LoadReport

if TYPE_CHECKING:
    from transformers import RobertaConfig

PUBLISHED = "distilbert/distilroberta-base"
"""The hub's name of the weights that the paper uses."""


class RobertaEncoder(nn.Module):
    """Token features of a sentence. Frozen: no gradient reaches its weights."""

    def __init__(self, config: ModelConfig) -> None:
        """Random weights.

        Raises:
            ModuleNotFoundError: transformers is not installed; the message says how to get it.
        """
        super().__init__()
        try:
            from transformers import RobertaModel
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "the RoBERTa text encoder needs transformers: pip install 'refavs-rt[full]'"
            ) from error
        self.roberta = RobertaModel(roberta_config(config), add_pooling_layer=False)
        self.requires_grad_(False)

    def forward(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """Features [N, L, text_width] of `token_ids` [N, L] int64; `token_mask` [N, L] is False on padding."""
        hidden: Tensor = self.roberta(token_ids, attention_mask=token_mask.long()).last_hidden_state
        return hidden


def roberta_config(config: ModelConfig) -> RobertaConfig:
    """The configuration of transformers that `config` stands for; attention is eager, which alone can be exported."""
    from transformers import RobertaConfig

    return RobertaConfig(
        vocab_size=config.text_vocabulary,
        hidden_size=config.text_width,
        num_hidden_layers=config.text_layers,
        num_attention_heads=config.text_heads,
        intermediate_size=config.text_hidden,
        max_position_embeddings=config.text_positions,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        attn_implementation="eager",
    )


def roberta_state(config: ModelConfig, source: str) -> tuple[dict[str, Tensor], LoadReport]:
    """The weights of a published RoBERTa under EEMC's names.

    Args:
        source: a hub's name, or a folder in its format.

    Raises:
        WeightsError: there is no such folder and the hub does not give it, or it is damaged.
    """
    from transformers import RobertaModel

    with hub_folder(source) as folder:
        loaded, info = RobertaModel.from_pretrained(
            folder,
            config=roberta_config(config),
            add_pooling_layer=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    state = {f"text_encoder.roberta.{name}": value for name, value in loaded.state_dict().items()}
    mismatched = [(name, tuple(there), tuple(here)) for name, there, here in sorted(info["mismatched_keys"])]
    heads = ("pooler.", "lm_head.")  # of the published model's own tasks
    unexpected = sorted(
        name for name in info["unexpected_keys"] if not name.removeprefix("roberta.").startswith(heads)
    )
    return state, LoadReport(
        missing=sorted(info["missing_keys"]), unexpected=unexpected, mismatched=mismatched
    )


def roberta_tokenizer(source: str) -> bytes:
    """The tokenizer.json of a hub's name, or of a folder in its format.

    Raises:
        WeightsError: there is no such folder and the hub does not give it, it is damaged, or has no fast tokenizer.
    """
    from transformers import AutoTokenizer

    with hub_folder(source) as folder:
        text: str = AutoTokenizer.from_pretrained(folder, use_fast=True).backend_tokenizer.to_str()
    return text.encode()
