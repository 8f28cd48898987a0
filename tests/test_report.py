"""The sheets and the table of samples: the best and the worst really are, and the command makes them for a run."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from refavs_rt.config import TEST
from refavs_rt.model.eemc import EEMC
from refavs_rt.model.text import minilm_folder
from refavs_rt.train import report, sheet
from refavs_rt.train.checkpoint import save_weights, write_json
from refavs_rt.train.cli import main
from refavs_rt.train.report import write_samples
from refavs_rt.train.validate import ScoredSample

from .ref_avs_tree import write_tree

BEST, WORST, NULL = ("samples/best.png", "samples/worst.png", "samples/null.png")


def sample(number: int, score: float, kind: str = "name", text: str = "The disc.") -> ScoredSample:
    """A sample whose picture is of one colour, from which its number can be read."""
    frame = np.empty((64, 64, 3), np.uint8)
    frame[:] = (number, 7, 90)
    nothing = np.zeros((16, 16), bool)
    return ScoredSample(f"clip {number}", kind, text, score, frame, nothing, nothing)


def numbers_on(path: Path) -> list[int]:
    """The numbers of the samples on a sheet, row by row."""
    with Image.open(path) as image:
        pixels = np.asarray(image)
    is_picture = (pixels[..., 1] == 7) & (pixels[..., 2] == 90)
    out = []
    for top in starts(is_picture.any(axis=1)):
        line = is_picture[top + 100]
        out += [int(pixels[top + 100, left, 0]) for left in starts(line)]
    return out


def starts(flags: NDArray[np.bool_]) -> list[int]:
    return np.flatnonzero(np.diff(flags.astype(int), prepend=0) == 1).tolist()


def table(run: Path) -> list[dict[str, str]]:
    with (run / "samples/samples.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_best_and_the_worst_really_are(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).permutation(np.linspace(0, 1, 57))
    samples = [sample(number, float(score)) for number, score in enumerate(scores)]
    write_samples(tmp_path, samples, 300)
    order = np.argsort(scores)
    assert numbers_on(tmp_path / WORST) == order[:20].tolist()
    assert numbers_on(tmp_path / BEST) == order[::-1][:20].tolist()
    rows = table(tmp_path)
    assert [row["clip"] for row in rows] == [f"clip {number}" for number in order[::-1]]
    assert [int(row["rank"]) for row in rows] == list(range(1, 58))
    for row, number in zip(rows, order[::-1], strict=True):
        assert float(row["J"]) == pytest.approx(scores[number], abs=5e-5)
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "best.png",
        "samples.csv",
        "worst.png",
    ]


def test_captions_are_those_of_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []

    def note(tiles: list[tuple[NDArray[np.uint8], str, str]], title: str) -> NDArray[np.uint8]:
        said.append((title, [(int(picture[9, 9, 0]), heading, text) for picture, heading, text in tiles]))
        return sheet.sheet(tiles, title)

    monkeypatch.setattr(report, "sheet", note)
    samples = [sample(1, 0.25, text="one"), sample(2, 0.75, "sound", "two"), sample(3, 0.9, "null", "three")]
    write_samples(tmp_path, samples, 1234)
    one, two = (1, "J 0.25 · name · clip 1", "one"), (2, "J 0.75 · sound · clip 2", "two")
    assert [tiles for _, tiles in said] == [
        [two, one],
        [one, two],
        [(3, "10.0% shown · null · clip 3", "three")],
    ]
    assert all("1,234" in title for title, _ in said) and "2 best of 2" in said[0][0]


def test_null_sentences_have_a_sheet_and_ranks_of_their_own(tmp_path: Path) -> None:
    """They would fill both ends: a model that shows nothing is right about all of them."""
    nulls = [sample(n, 1 - n / 100, "null") for n in range(30)]
    write_samples(tmp_path, [*nulls, sample(50, 0.5), sample(51, 0.1)], 10)
    assert numbers_on(tmp_path / NULL) == list(range(29, 9, -1))
    assert numbers_on(tmp_path / BEST) == [50, 51] and numbers_on(tmp_path / WORST) == [51, 50]
    ranks = [(row["kind"], int(row["rank"])) for row in table(tmp_path)]
    assert ranks == [("name", 1), ("name", 2), *(("null", n + 1) for n in range(30))]


def test_of_equals_those_of_many_clips_are_shown(tmp_path: Path) -> None:
    samples = [dataclasses.replace(sample(n, 0.0), name=f"clip {n // 8}") for n in range(240)]
    write_samples(tmp_path, samples, 10)
    assert len({number // 8 for number in numbers_on(tmp_path / WORST)}) == 20


def test_what_a_sentence_says_comes_back_from_the_table(tmp_path: Path) -> None:
    texts = ['The "loud", big one;', "two\nlines", "Größe 猫 🎸", "", "=1+1"]
    write_samples(tmp_path, [sample(n, 1 - n / 10, text=text) for n, text in enumerate(texts)], 10)
    assert [row["text"] for row in table(tmp_path)] == texts


def test_a_later_validation_replaces_the_files(tmp_path: Path) -> None:
    write_samples(tmp_path, [sample(1, 0.5), sample(2, 0.9, "null")], 10)
    write_samples(tmp_path, [sample(3, 0.5)], 20)
    assert numbers_on(tmp_path / BEST) == [3] and not (tmp_path / NULL).exists()
    assert [row["clip"] for row in table(tmp_path)] == ["clip 3"]


def test_a_write_that_fails_leaves_the_sheet_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_samples(tmp_path, [sample(1, 0.5)], 10)
    real = Path.write_bytes

    def full_disk(path: Path, content: bytes) -> int:
        real(path, content[: len(content) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_samples(tmp_path, [sample(2, 0.5)], 20)
    assert numbers_on(tmp_path / BEST) == [1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with random weights, without curves."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    folder.mkdir()
    torch.manual_seed(0)
    config = dataclasses.replace(TEST, text_tokens=25)
    save_weights(folder, config, EEMC(config).state_dict())
    write_json(folder / "settings.json", {"train": {"temporal": "full"}})
    (folder / "tokenizer.json").write_bytes((minilm_folder() / "tokenizer.json").read_bytes())
    return folder


def test_the_command_on_scenes(run: Path, tiny_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "--data", f"scenes:{tiny_path}", "--clips", "3"]) == 0
    printed = capsys.readouterr().out
    assert (
        "J_name" in printed and f"best.png, worst.png, null.png, samples.csv in {run / 'samples'}" in printed
    )
    rows = table(run)
    assert {row["clip"] for row in rows} == {"scene 0", "scene 1", "scene 2"}
    values = [float(row["J"]) for row in rows if row["kind"] == "name"]
    assert f"{np.mean(values):.4f}"[:5] in printed
    for name in (BEST, WORST, NULL):
        with Image.open(run / name) as image:
            assert image.width > 600  # room for the title, be there one picture or twenty


def test_the_command_on_a_data_set(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the split val need be there."""
    tree, out = write_tree(tmp_path / "data"), tmp_path / "deep" / "out"
    for clip in (tree / "media").iterdir():
        if "clip3_" not in clip.name:
            shutil.rmtree(clip)
    assert main(["report", str(run), "--data", str(tree), "--out", str(out)]) == 0
    assert "note" not in capsys.readouterr().err
    with (out / "samples.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["clip"], row["kind"]) for row in rows} == {
        ("clip3_0_10000", "expression"),
        ("null_c-clip3_0_10000", "null"),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "is not a run folder"),
        (["RUN", "--data", "nowhere"], "neither a pack nor a data set"),
        (["RUN", "--data", "TREE"], "has no rows of split 'val'"),
        (["BROKEN", "--data", "TREE"], "tokenizer.json is damaged"),
    ],
)
def test_mistakes_are_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in run.iterdir():
        if path.is_file():
            (broken / path.name).write_bytes(path.read_bytes())
    (broken / "tokenizer.json").write_bytes(b"{")
    tree = write_tree(tmp_path / "data", ("train",))
    named = {"RUN": str(run), "TREE": str(tree), "BROKEN": str(broken)}
    assert main(["report", *(named.get(word, word) for word in arguments)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1


def test_no_clips_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["report", str(run), "--clips", "0"])
    assert "'0' is not a whole number above 0" in capsys.readouterr().err
