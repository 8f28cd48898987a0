"""`python -m train ablate` from end to end with a tiny network on plain shapes, and what it says of mistakes."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from PIL import Image

from refavs_rt.train.ablate.cli import EXPERIMENTS
from refavs_rt.train.ablate.degraded import BASELINE
from refavs_rt.train.ablate.table import UNREAD, read_reading
from refavs_rt.train.ablate.training import RETRAININGS
from refavs_rt.train.cli import main
from refavs_rt.train.material import Pack
from refavs_rt.train.scenes.writer import write_dataset

from .test_predict import write_run
from .tiny_bundle import tiny_model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "tiny", tiny_model().state_dict())


@pytest.fixture(scope="module")
def tree(tiny: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of two splits."""
    out = tmp_path_factory.mktemp("set") / "small"
    return write_dataset(
        out, tiny, clips=6, seed=1, seconds=2, size=(48, 64), progress=lambda done, total: None
    )


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_degraded(run: Path, tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On generated scenes, twice: the numbers are the same, and what a person wrote is kept."""
    arguments = ["--checkpoint", str(run), "--pack", str(tiny_path), "--clips", "1", "--out", str(tmp_path)]
    assert main(["ablate", "degraded", *arguments]) == 0
    said = capsys.readouterr()
    assert f"wrote {tmp_path / 'degraded'}.csv, .md and .png" in said.out and "degraded:" in said.err
    rows = table(tmp_path, "degraded")
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    assert conditions[0] == BASELINE and len(conditions) == 22
    assert rows[0]["group"] == "all" and {row["clips"] for row in rows} == {"1"}
    with Image.open(tmp_path / "degraded.png") as image:
        assert image.width > 400
    page = tmp_path / "degraded.md"
    text = page.read_text()
    assert re.search(
        r"- model: run tiny of the preset test through torch, sha256 of model.safetensors \w{16}\n", text
    )
    assert "- generated scenes of the split test_s, seed 0, numbers 0 to 0" in text
    assert str(tmp_path) not in text and str(run) not in text and str(tiny_path) not in text
    page.write_text(text.replace(UNREAD, "Nothing is learned from one clip."))
    before = (tmp_path / "degraded.csv").read_bytes()
    assert main(["ablate", "degraded", *arguments]) == 0
    assert (tmp_path / "degraded.csv").read_bytes() == before
    assert read_reading(page) == "Nothing is learned from one clip."


def test_degraded_on_a_data_set(run: Path, tree: Path, tmp_path: Path) -> None:
    arguments = ["--checkpoint", str(run), "--data", str(tree), "--clips", "1", "--out", str(tmp_path)]
    assert main(["ablate", "degraded", *arguments]) == 0
    assert len({row["condition"] for row in table(tmp_path, "degraded")}) == 22
    assert "1 of 1 clips of the split test_s of the data set small" in (tmp_path / "degraded.md").read_text()


@pytest.mark.parametrize("on_disk", [False, True])
def test_domain(run: Path, tree: Path, tiny_path: Path, tmp_path: Path, on_disk: bool) -> None:
    source = ["--data", str(tree)] if on_disk else ["--pack", str(tiny_path)]
    arguments = ["--checkpoint", str(run), *source, "--clips", "2", "--out", str(tmp_path)]
    assert main(["ablate", "domain", *arguments]) == 0
    conditions = list(dict.fromkeys(row["condition"] for row in table(tmp_path, "domain")))
    if on_disk:
        assert conditions == ["test_s", "test_u"]
    else:
        assert conditions == ["both trained", "other recording", "other background", "both other"]
        assert {row["clips"] for row in table(tmp_path, "domain") if row["group"] == "all"} == {"2"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bundle", "{tmp}/no-bundle", "--pack", "{tiny}"], "no such bundle folder"),
        (["--checkpoint", "{tmp}/no-run", "--pack", "{tiny}"], "no-run is not a run folder; train one"),
        (["--pack", "{tmp}/no.pack", "--checkpoint", "{run}"], "no.pack is missing; build it with"),
        (["--data", "{tmp}/no-set", "--checkpoint", "{run}"], "there is no folder .*no-set"),
        (["--out", "{tmp}/file", "--checkpoint", "{run}"], "cannot be written.*choose another --out"),
        (["--out", "{tmp}/lost", "--checkpoint", "{run}"], "has lost its mark <!-- reading -->"),
    ],
)
def test_faults_are_one_line(
    run: Path,
    tiny_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "degraded.md").write_text("mine")
    given = [a.format(tmp=tmp_path, tiny=tiny_path, run=run) for a in arguments]
    out = [] if "--out" in given else ["--out", str(tmp_path / "out")]
    code = main(["ablate", "degraded", *given, *out])
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 1 and len(lines) == 1 and lines[0].startswith("error: ")
    assert re.search(message, lines[0]), lines[0]
    assert (tmp_path / "lost" / "degraded.md").read_text() == "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["degraded", "--clips", "0"],
        ["degraded", "--seed", "-1"],
        ["degraded", "--bundle", "edge", "--checkpoint", "x"],
        ["degraded", "--split", "TODO"],
        ["components", "--bundle", "edge"],
    ],
)
def test_wrong_usage_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["ablate", *arguments])
    assert error.value.code == 2
    assert "usage: python -m train ablate" in capsys.readouterr().err


def test_without_a_name_the_experiments_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate"]) == 2
    said = capsys.readouterr().err
    for name, entry in EXPERIMENTS.items():
        assert name in said and entry.summary in said


def test_help_names_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["ablate", "--help"])
    assert error.value.code == 0
    said = capsys.readouterr().out
    for name, entry in EXPERIMENTS.items():
        assert re.search(rf"^  {name} +{re.escape(entry.summary)}$", said, re.MULTILINE)
    with pytest.raises(SystemExit):
        main(["ablate", "degraded", "--help"])
    assert "--checkpoint RUN" in capsys.readouterr().out


def test_each_experiment_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for name, entry in EXPERIMENTS.items():
        with pytest.raises(SystemExit) as ended:
            main(["ablate", name, "--help"])
        assert ended.value.code == 0
        assert f"{name}: {entry.summary}." in " ".join(capsys.readouterr().out.split())
    assert {name for name, entry in EXPERIMENTS.items() if entry.trains} == set(RETRAININGS)
