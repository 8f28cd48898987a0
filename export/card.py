"""The model card of a bundle: what the model is, what it was trained on, and how good it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from refavs_rt.model.run_folder import CheckpointError, Run

CARD = "MODEL_CARD.md"
EVALUATIONS = "evaluation"
"""Folder in a run: each `NAME.json` that `python -m train evaluate --json` wrote there becomes a table of the card, and so does
what `python -m train card --checkpoint RUN` measured."""
_MEASURED = "card.json"

_SCENES_LIMITS = (
    "It was trained on composed scenes, not on Ref-AVS: no figure here is a Ref-AVS result. It knows about 220 kinds of things"
    " by name and 65 by their sound, mostly animals and instruments. It does not know people.",
    "",
)


def model_card(run: Run) -> str:
    """The card of a run, in Markdown.

    Raises:
        CheckpointError: a figure in the run's `evaluation` folder cannot be read.
    """
    training = run.training
    settings = training.get("train", {})
    trained = sum(
        p.numel()
        for name, p in run.model.named_parameters()
        if not name.startswith(("backbone", "text_encoder"))
    )
    parts = [
        f"# Model card: `{run.model.config.preset}`",
        "",
        "Segments what a sentence means in a video with sound (Ref-AVS, arXiv 2407.10957): the network EEMC with small encoders.",
        "",
        f"- Trained parameters: {trained / 1e6:.1f} M. Pictures of {run.model.config.image_size} x {run.model.config.image_size}"
        f" pixels, sentences of at most {run.model.config.text_tokens} tokens, one memory tick a second.",
        f"- Trained on: {training.get('data', 'unknown')}.",
        f"- Licences of that material: {training.get('licence', 'unknown')}.",
        f"- Steps: {_steps(training)}, seed {settings.get('seed', 'unknown')}.",
        "",
        "## How good it is",
        "",
        *_figures(run.path / EVALUATIONS),
        "",
        "## What it is not for",
        "",
        *(_SCENES_LIMITS if "generated scenes" in str(training.get("data")) else ()),
        "It must not be used where a wrong mask can hurt.",
    ]
    return "\n".join(parts) + "\n"


def _steps(training: dict[str, Any]) -> str:
    steps = str(training.get("train", {}).get("steps", "unknown"))
    before = training.get("steps_before") or []
    return f"{' + '.join(map(str, before))} + {steps}, in runs one after another" if before else steps


def _figures(folder: Path) -> list[str]:
    paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not paths:
        return ["Not measured."]
    lines = [
        "J is the mean intersection over union, F the F-measure, S the root of"
        " the share of the picture that is marked where nothing fits; n counts expressions.",
    ]
    if folder / _MEASURED in paths:
        paths.remove(folder / _MEASURED)
        lines += _measured(folder / _MEASURED)
    for path in paths:
        lines += [
            "",
            f"### {path.stem.replace('_', ' ')}",
            "",
            "| kind of sentence | J | F | S | n |",
            "| --- | --- | --- | --- | --- |",
        ]
        report = _read(path)
        lines.append(_row("all", report))
        lines += [_row(kind, row) for kind, row in report["by_type"].items()]
        lines += [_row(f"{kind}, other recordings", row) for kind, row in report["other_recording"].items()]
    return lines


def _measured(path: Path) -> list[str]:
    """The table of `python -m train card`: frames count in which it can be known what is meant."""
    lines = [
        "",
        "Over the frames in which the object is to be seen and, where the sentence turns on its sound, has been heard:",
        "",
        "| sentences | measure | mean | 95% interval | n |",
        "| --- | --- | --- | --- | --- |",
    ]
    try:
        for row in json.loads(path.read_text()):
            low, high = row["low"], row["high"]
            interval = "" if low is None or high is None else f"{low:.2f} to {high:.2f}"
            lines.append(
                f"| {row['what']} | {row['measure']} | {row['mean']:.3f} | {interval} | {row['expressions']} |"
            )
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a report of `python -m train card`: {error!r}") from error
    return lines


def _row(name: str, figures: dict[str, Any]) -> str:
    cells = ["-" if figures[key] is None else f"{figures[key]:.3f}" for key in "JFS"]
    return f"| {name} | {' | '.join(cells)} | {figures['n']} |"


def _read(path: Path) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads(path.read_text())
        for row in (report, *report["by_type"].values(), *report["other_recording"].values()):
            _row("", row)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a report of `python -m train evaluate`: {error!r}") from error
    return report
