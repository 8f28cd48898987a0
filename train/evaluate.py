"""Evaluation on a data set in the form of Ref-AVS: J, F and S, by kind of expression and in the authors' variants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from refavs_rt.config import RunConfig
from refavs_rt.dataset import DataError, Row, Table, read_clip, read_table

from .batches import WINDOW_S
from .metrics import FrameScores, Summary, authors, per_expression, score_frames
from .predict import Predictor
from .truth import read_masks

Pairing = Literal["dataset", "live"]


@dataclass(frozen=True)
class EvaluateConfig:
    """How to evaluate."""

    split: str | None = None
    limit: int | None = None
    """Clips, the first in table order."""
    pairing: Pairing = "dataset"
    """"dataset": frame i with the window that begins at second i; "live": with the one that ends there."""
    muted: bool = False
    """Replace the sound by silence; truths stay."""
    swap: bool = False
    """Give each row the sentence of another object of its clip, as rows.jsonl names it; truths stay, rows without one are
    left out."""
    presence_threshold: float = RunConfig().presence_threshold


@dataclass
class _Scored:
    row: Row
    gated: FrameScores
    plain: FrameScores


def evaluate(
    predictor: Predictor,
    folder: Path,
    config: EvaluateConfig,
    others: Mapping[str, Predictor] = MappingProxyType({}),
) -> dict[str, Any]:
    """Evaluate `predictor` on the data set in `folder`.

    Args:
        others: name -> a predictor of the same image size that is evaluated on the same clips beside it.

    Returns:
        `J`, `F`, `S` (null where there are no null rows) and `n`, per expression and with the presence gate; `by_type`;
        `other_recording`; `variants`; the same of each other predictor under its name; and under `skipped` the clips and rows
        that could not be read, and why.

    Raises:
        DataError: there is nothing to evaluate.
        BundleError, CheckpointError: the model returned NaN or infinity.
    """
    table = read_table(folder, config.split)
    texts = {row.uid: row.text for row in table.rows}
    if config.swap:
        table.rows = [row for row in table.rows if row.swap_uid in texts and not row.is_null]
        if not table.rows:
            raise DataError(
                f"--swap takes a data set that says which rows of a clip mean other objects, as `python -m train scenes` writes "
                f"them into rows.jsonl; {folder} does not: evaluate without --swap"
            )
    clips = list(table.by_clip())[: config.limit]
    predictors = [predictor, *others.values()]
    scored: list[list[_Scored]] = [[] for _ in predictors]
    skipped = dict(table.left_out)
    for clip, rows in tqdm(clips, unit="clip", desc="evaluate", dynamic_ncols=True):
        try:
            of_clip = _score_clip(predictors, table, clip, rows, texts, config)
        except DataError as error:
            skipped[clip] = str(error)
            continue
        for total, new in zip(scored, of_clip, strict=True):
            total += new
    if not scored[0]:
        fault = next(reversed(skipped.values()))
        raise DataError(f"{folder}: no clip could be evaluated; the last fault: {fault}")
    first, *rest = (_figures_of(each) for each in scored)
    beside = dict(zip(others, rest, strict=True))
    return {**first, **beside, "settings": asdict(config), "skipped": skipped}


def _score_clip(
    predictors: Sequence[Predictor],
    table: Table,
    clip: str,
    rows: list[Row],
    texts: dict[str, str],
    config: EvaluateConfig,
) -> list[list[_Scored]]:
    """The scores of the clip's rows, for each predictor."""
    media = read_clip(table.folder, clip, predictors[0].image_size)
    patches = None
    if media.samples is not None:
        patches = media.patches(WINDOW_S if config.pairing == "dataset" else 0.0)
        if config.muted:
            patches = np.full_like(patches, np.log(0.01))
    said = [texts[row.swap_uid] if config.swap and row.swap_uid else row.text for row in rows]
    truths: dict[tuple[str, bool], np.ndarray] = {}
    for row in rows:
        key = (row.object_id, row.is_null)
        if key not in truths:
            truths[key] = read_masks(table.folder, row, len(media.frames))
    out = []
    for predictor in predictors:
        masks, presence = predictor.predict(media.frames, patches, said)
        scored = []
        for n, row in enumerate(rows):
            truth, present = truths[row.object_id, row.is_null], presence[:, n] >= config.presence_threshold
            gated, plain = score_frames(masks[:, n], truth, present), score_frames(masks[:, n], truth)
            scored.append(_Scored(row, gated, plain))
        out.append(scored)
    return out


def _figures_of(scored: list[_Scored]) -> dict[str, Any]:
    """All that is said of one predictor."""
    scored = sorted(
        scored, key=lambda s: s.row.line
    )  # clips take turns in the table; the authors' batches follow it

    def figures(
        chosen: Sequence[_Scored],
        gate: bool = True,
        mean: Callable[[Sequence[FrameScores], Sequence[bool]], Summary] = per_expression,
    ) -> dict[str, Any]:
        summary = mean([s.gated if gate else s.plain for s in chosen], [s.row.is_null for s in chosen])
        return {**asdict(summary), "n": len(chosen)}

    kinds = sorted({s.row.kind for s in scored if s.row.kind})
    other = [s for s in scored if s.row.other_recording]
    return {
        **figures(scored),
        "by_type": {kind: figures([s for s in scored if s.row.kind == kind]) for kind in kinds},
        "other_recording": {
            kind: figures([s for s in other if s.row.kind == kind])
            for kind in sorted({s.row.kind or "" for s in other})
        },
        "variants": {
            "per_expression_without_gate": figures(scored, gate=False),
            "authors_with_gate": figures(scored, mean=authors),
            "authors_without_gate": figures(scored, gate=False, mean=authors),
        },
    }
