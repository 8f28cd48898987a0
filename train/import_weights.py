"""Published weights, each name and shape checked against the module that takes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from refavs_rt.config import FULL, ModelConfig
from refavs_rt.model.efficientnet import EfficientNetLite0
from refavs_rt.model.hub import hub_folder
from refavs_rt.model.load_report import LoadReport
from refavs_rt.model.run_folder import TOKENIZER
from refavs_rt.model.vggish import Vggish, from_tensorflow, is_tensorflow_name

from .published import file_sha256, read_published

Part = Literal["vggish", "efficientnet", "mask2former", "text"]

_LICENCES = {
    "10086976245803799d9194e9a73d9b6c1549c71d1b80106f5cade5608a561f4b": "Apache-2.0",  # torchvggish
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db": "Apache-2.0",  # EfficientNet-PyTorch-lite
}
"""sha256 of a published file -> its licence."""
_CLASS_HEAD = "class_predictor."
_WEIGHT_FILES = (".safetensors", ".bin")


@dataclass(frozen=True)
class ImportedPart:
    """What was read of one published set of weights, and what became of its names."""

    part: Part
    source: str
    """File, folder or hub's name, as given."""
    sha256: dict[str, str]
    """File name -> digest of each file of weights."""
    licence: str | None
    """None where it is not known."""
    state: dict[str, Tensor]
    """The tensors that found their place: of VGGish and EfficientNet-Lite0 under these modules' names, of others under EEMC's."""
    report: LoadReport
    """Names as the published file has them."""
    beside: dict[str, bytes] = field(default_factory=dict)
    """File name -> contents of what belongs to the weights and is none."""

    @property
    def is_whole(self) -> bool:
        """Nothing is missing or of another shape, the class head of Mask2Former excepted, of which two rows are taken."""
        return not self.report.missing and all(
            self._is_class_head(name) for name, _, _ in self.report.mismatched
        )

    def to_text(self) -> str:
        """The report for people, each name on a line of its own."""
        report = self.report
        lines = [
            f"{self.part} from {self.source} (licence: {self.licence or 'not known'})",
            f"  {len(self.state)} mapped, {len(report.unexpected)} not mapped, {len(report.missing)} missing, "
            f"{len(report.mismatched)} of another shape",
            *(f"  not mapped: {name}" for name in report.unexpected),
            *(f"  missing: {name}" for name in report.missing),
        ]
        for name, there, here in report.mismatched:
            taken = "; its first and last rows are taken" if self._is_class_head(name) else ""
            lines.append(f"  another shape: {name} is {list(there)} in the file, {list(here)} here{taken}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """What `imported.json` keeps."""
        report = self.report
        return {
            "source": Path(self.source).name if Path(self.source).exists() else self.source,
            "sha256": self.sha256,
            "licence": self.licence,
            "mapped": sorted(self.state),
            "not_mapped": report.unexpected,
            "missing": report.missing,
            "other_shape": [
                {"name": name, "file": list(there), "module": list(here)}
                for name, there, here in report.mismatched
            ],
        }

    def _is_class_head(self, name: str) -> bool:
        return self.part == "mask2former" and name.startswith(_CLASS_HEAD)


def import_part(part: Part, source: str, config: ModelConfig = FULL) -> ImportedPart:
    """Read one published set of weights; whether it `is_whole` is for the caller to ask.

    Args:
        source: for VGGish and EfficientNet-Lite0 a file (see `read_published`), for Mask2Former and the text encoder a folder in
            the hub's format or a hub's name.
        config: fixes the sizes.

    Raises:
        WeightsError: the source cannot be read.
        ModuleNotFoundError: transformers is not installed, for the latter two.
    """
    if part == "vggish":
        return _vggish(Path(source), config)
    if part == "efficientnet":
        return _efficientnet(Path(source))
    return _from_hub(part, source, config)


def match(tensors: Mapping[str, Tensor], module: nn.Module) -> tuple[dict[str, Tensor], LoadReport]:
    """The tensors that fit `module` by name and shape, and a report on the others."""
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    report = LoadReport(
        missing=[name for name in wanted if name not in given],
        unexpected=[name for name in given if name not in wanted],
        mismatched=[
            (name, given[name], shape) for name, shape in wanted.items() if given.get(name, shape) != shape
        ],
    )
    return {name: tensors[name] for name, shape in wanted.items() if given.get(name) == shape}, report


def _vggish(path: Path, config: ModelConfig) -> ImportedPart:
    tensors = read_published(path)
    if any(map(is_tensorflow_name, tensors)):
        tensors = from_tensorflow(tensors)
    with torch.device("meta"):
        module = Vggish(config.audio_channels, config.vggish_hidden)
    return _from_file("vggish", path, *match(tensors, module))


def _efficientnet(path: Path) -> ImportedPart:
    with torch.device("meta"):
        module = EfficientNetLite0()
    return _from_file("efficientnet", path, *match(read_published(path), module))


def _from_file(part: Part, path: Path, state: dict[str, Tensor], report: LoadReport) -> ImportedPart:
    digest = file_sha256(path)
    return ImportedPart(part, str(path), {path.name: digest}, _LICENCES.get(digest), state, report)


def _from_hub(part: Part, source: str, config: ModelConfig) -> ImportedPart:
    beside = {}
    if part == "text":
        from refavs_rt.model.roberta import roberta_state, roberta_tokenizer

        state, report = roberta_state(config, source)
        beside[TOKENIZER] = roberta_tokenizer(source)
    else:
        from refavs_rt.model.swin import mask2former_state

        state, report = mask2former_state(config, source)
    with hub_folder(source) as folder:
        digests = _digests(sorted(folder.iterdir()))
        licence = _card_licence(folder / "README.md")
    return ImportedPart(part, source, digests, licence, state, report, beside)


def _digests(paths: Iterable[Path]) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in paths if path.suffix in _WEIGHT_FILES}


def _card_licence(card: Path) -> str | None:
    """The licence that the head of a model card names."""
    if not card.is_file():
        return None
    head = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    found = re.search(r"^license:\s*(\S+)", head[1], re.MULTILINE) if head else None
    return found[1] if found else None
