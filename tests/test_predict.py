"""The same weights through torch and through the shipped runtime, on a data set on disk and clip by clip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from refavs_rt.bundle import TOKENIZER
from refavs_rt.config import TEST, RunConfig
from refavs_rt.dataset import DataError
from refavs_rt.engines import Arrays
from refavs_rt.model.run_folder import CheckpointError
from refavs_rt.model.text import minilm_folder
from refavs_rt.session import load
from refavs_rt.tokenizer import SentenceCutWarning, Tokenizer
from refavs_rt.train.batches import normalise
from refavs_rt.train.checkpoint import save_weights, write_json
from refavs_rt.train.cli import main
from refavs_rt.train.predict import BundlePredictor, Predictor, TorchPredictor

from .test_dataset import write_clip, write_table
from .tiny_bundle import TRAINING, tiny_model, write_tiny_bundle

TEXTS = [
    "the red cat",
    "a dog",
    "one that barks",
    "left bird",
    "guitar",
    "the car",
    "a loud bus",
    "it",
    "a cow",
    "no",
]
"""More than the model takes at a time."""


def write_run(folder: Path, state: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    save_weights(folder, TEST, state)
    write_json(folder / "settings.json", TRAINING)
    (folder / TOKENIZER).write_bytes((minilm_folder() / "tokenizer.json").read_bytes())
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "tiny", tiny_model().state_dict())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny").path


def clip(ticks: int = 7) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """More ticks than the ring holds."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (ticks, TEST.image_size, TEST.image_size, 3)).astype(np.uint8)
    return frames, rng.normal(-2, 1.5, (ticks, 96, 64)).astype(np.float32)


def assert_close(
    found: tuple[NDArray[np.float32], NDArray[np.float32]],
    wanted: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    """All masks and presences but one in fifty: where a logit is next to zero, masked attention sees another pixel, and in this
    network of 16 x 16 pixels that moves the whole mask of that tick and sentence. The others agree to 1e-4."""
    assert found[0].shape == wanted[0].shape and found[1].shape == wanted[1].shape
    scale = max(1.0, float(np.abs(wanted[0]).max()))
    same = np.abs(found[0] - wanted[0]).max(axis=(-2, -1)) <= 1e-4 * scale
    same &= np.abs(found[1] - wanted[1]) <= 1e-4
    print(f"{int((~same).sum())} of {same.size} masks flipped")
    assert (~same).sum() <= same.size // 50


@pytest.mark.parametrize("track", [True, False])
def test_torch_and_bundle_agree(run: Path, bundle: Path, track: bool) -> None:
    """Ten sentences, in groups, over more ticks than the ring holds."""
    frames, sound = clip()
    patches = sound if track else None
    predictors: tuple[Predictor, Predictor] = TorchPredictor(run), BundlePredictor(str(bundle))
    clipwise, streamed = (p.predict(frames, patches, TEXTS) for p in predictors)
    size = TEST.mask_size
    assert clipwise[0].shape == (7, len(TEXTS), size, size) and clipwise[1].shape == (7, len(TEXTS))
    assert_close(streamed, clipwise)
    assert predictors[0].image_size == predictors[1].image_size == TEST.image_size
    apart = np.abs(clipwise[0] - clipwise[0][:, :1]).max(axis=(0, 2, 3))
    assert (apart[1:] > 1e-3).all() and apart.max() > 0.1, "the sentence changes nothing"


def test_sound_silence_and_no_track_are_three_things(run: Path) -> None:
    predictor = TorchPredictor(run)
    frames, sound = clip(3)
    silence = np.full_like(sound, np.log(0.01))
    heard, silent, trackless = (predictor.predict(frames, x, TEXTS[:2])[0] for x in (sound, silence, None))
    for one, other in ((heard, silent), (silent, trackless), (heard, trackless)):
        assert np.abs(one - other).max() > 1e-3


def test_a_sentence_does_not_depend_on_its_company(run: Path) -> None:
    predictor = TorchPredictor(run)
    frames, sound = clip(3)
    together = predictor.predict(frames, sound, TEXTS)
    alone = predictor.predict(frames, sound, TEXTS[9:])
    assert_close((together[0][:, 9:], together[1][:, 9:]), alone)


def test_temporal_modes_are_those_of_the_network(run: Path) -> None:
    """Over more ticks than the window, one after the other on the same clip, in any order."""
    model, tokenizer = tiny_model(), Tokenizer(minilm_folder().joinpath("tokenizer.json").read_bytes(), 6)
    (frames, sound), texts = clip(), TEXTS[:3]
    band = TorchPredictor(run)
    predictors = {"band": band, "full": band.with_temporal("full")}
    assert predictors["full"].model is band.model and band.temporal == "band"
    ids, mask = (torch.from_numpy(x)[None] for x in tokenizer.encode(texts))
    found = {}
    for temporal in ("full", "band", "full"):
        with torch.inference_mode():
            wanted = model.forward_clip(
                torch.from_numpy(normalise(frames))[None],
                torch.from_numpy(sound)[None],
                torch.ones(1, len(frames), dtype=torch.bool),
                ids,
                mask,
                temporal=temporal,
            )
        found[temporal] = predictors[temporal].predict(frames, sound, texts)
        assert_close(found[temporal], (wanted.mask_logits[0].numpy(), wanted.presence[0].numpy()))
    assert np.abs(found["band"][0] - found["full"][0]).max() > 0.01
    alone = TorchPredictor(run, temporal="full").predict(frames, sound, texts)
    np.testing.assert_array_equal(alone[0], found["full"][0])


@pytest.mark.parametrize("through", ["torch", "runtime"])
def test_what_was_seen_and_heard_before_changes_nothing(
    run: Path, bundle: Path, through: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same frames or sounds again, others, shorter ones, none, more sentences than go together: always the answer of a
    predictor that has seen nothing; and frames that come again are not looked at again."""

    def fresh() -> TorchPredictor | BundlePredictor:
        return TorchPredictor(run) if through == "torch" else BundlePredictor(str(bundle))

    (frames, sound), other = clip(), clip()[0][::-1].copy()
    calls = [
        (frames, sound, TEXTS),
        (frames, sound[::-1].copy(), TEXTS[:2]),
        (frames, None, TEXTS[1:3]),
        (frames, sound, TEXTS[2:4]),
        (other, sound, TEXTS[:2]),
        (other[:3], sound[:3], TEXTS[:2]),
        (other, None, TEXTS[:1]),
        (frames, None, TEXTS[:1]),
    ]
    used = fresh()
    looks: list[int] = []
    if isinstance(used, TorchPredictor):
        used.model.backbone.register_forward_hook(lambda module, inputs, output: looks.append(len(inputs[0])))
    else:
        engine = used._engine._engine
        vision = engine.vision

        def watched(inputs: Arrays) -> dict[str, NDArray[Any]]:
            looks.append(1)
            return vision(inputs)

        monkeypatch.setattr(engine, "vision", watched)
    for number, call in enumerate(calls):
        found, wanted = used.predict(*call), fresh().predict(*call)
        for mine, theirs in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(mine, theirs, err_msg=f"call {number}")
    assert sum(looks) == 7 + 7 + 3 + 7 + 7


def test_memory_mean_is_the_runtimes(run: Path, bundle: Path) -> None:
    frames, sound = clip(9)
    pictures = normalise(frames)
    found = {}
    for mean in ("cumulative", "exponential", "window"):
        settings = RunConfig(memory_mean=mean)
        found[mean] = BundlePredictor(str(bundle), settings).predict(frames, sound, TEXTS[:2])[0]
        session = load(str(bundle), run=settings).session(TEXTS[:2])
        for i in range(9):
            shown = session.predict(pictures[i], sound[i], float(i)).mask_logits
            np.testing.assert_array_equal(found[mean][i], shown)
    assert np.abs(found["cumulative"] - found["exponential"]).max() > 1e-3
    assert np.abs(found["cumulative"] - found["window"]).max() > 1e-3
    with pytest.raises(CheckpointError, match=r"tiny: .* not 'window'; export the run and give the bundle"):
        TorchPredictor(run, RunConfig(memory_mean="window"))


def test_sentences_are_checked(run: Path, bundle: Path) -> None:
    frames, sound = clip(2)
    for predictor in (TorchPredictor(run), BundlePredictor(str(bundle))):
        with pytest.raises(DataError, match=r"no word to read; mend it in the table"):
            predictor.predict(frames, sound, ["a dog", "\u200b"])
        with pytest.warns(SentenceCutWarning, match="the model reads 6"):
            long = predictor.predict(frames, sound, ["the red cat sits on the left of the dog"])
        same = predictor.predict(frames, sound, ["the red cat sits"])
        np.testing.assert_array_equal(long[0], same[0])


def test_a_model_that_returns_nan_is_refused(tmp_path: Path) -> None:
    """A comparison with NaN is False: such a model would have the best S."""
    state = {name: value.clone() for name, value in tiny_model().state_dict().items()}
    state["queries"][0, 0] = float("nan")
    run = write_run(tmp_path / "nan", state)
    frames, sound = clip(2)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: the model returned NaN or infinity"):
        TorchPredictor(run).predict(frames, sound, ["a dog"])


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tiny_model().state_dict())
    (run / TOKENIZER).write_bytes(b"{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
        TorchPredictor(run)


def test_evaluate_gives_the_same_through_both(
    run: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tmp_path / "tree"
    for name in ("a_0_1", "null_c-a_0_1"):
        write_clip(tree, name)
    rows = [
        ("a_0_1_cat_1", "test_s", 0, "The cat."),
        ("a_0_1_dog_1", "test_s", 1, "The dog that barks after the guitar starts."),
        ("null_c-a_0_1_null_1", "test_s", 0, "The bus."),
        ("gone_0_1_cow_1", "test_s", 0, "The cow."),
    ]
    write_table(tree, rows)
    reports = []
    for what in (["--checkpoint", str(run)], ["--bundle", str(bundle)]):
        out = tmp_path / "new" / f"{what[0][2:]}.json"
        arguments = ["--data", str(tree), "--json", str(out), "--split", "test_s"]
        assert main(["evaluate", *what, *arguments]) == 0
        reports.append(json.loads(out.read_text()))
        said = capsys.readouterr()
        lines = said.out.splitlines()
        both = what[0] == "--checkpoint"
        heads = [["band", "full"], ["J", "F", "S", "n"] * 2] if both else [["J", "F", "S", "n"]]
        assert [line.split() for line in lines[: len(heads)]] == heads
        cells = [line.split() for line in lines[len(heads) : len(heads) + 4]]
        assert [len(row) for row in cells] == [1 + 4 * (1 + both)] * 4
        assert [row[0] for row in cells] == [
            "all",
            "per_expression_without_gate",
            "authors_with_gate",
            "authors_without_gate",
        ]
        assert (
            f"1 clips or rows skipped; the first: gone_0_1: {tree / 'media' / 'gone_0_1'} is missing"
            in said.out
        )
        assert said.err.count("warning: the sentence 'The dog that barks") == 1 and ".py" not in said.err
    for report in reports:
        assert set(report) >= {"J", "F", "S", "n", "by_type", "variants", "skipped"} and report["n"] == 3
    for first, second in zip(
        [reports[0], *reports[0]["variants"].values()],
        [reports[1], *reports[1]["variants"].values()],
        strict=True,
    ):
        for name in "JFS":
            assert first[name] == pytest.approx(second[name], abs=2e-3)
    assert reports[0]["variants"]["per_expression_without_gate"]["F"] > 0.01
    assert [r["settings"]["temporal"] for r in reports] == ["both", "band"] and "full" not in reports[1]
    for temporal, figures in (("band", reports[0]), ("full", reports[0]["full"])):
        out = tmp_path / f"{temporal}.json"
        arguments = ["--data", str(tree), "--json", str(out), "--split", "test_s", "--temporal", temporal]
        assert main(["evaluate", "--checkpoint", str(run), *arguments]) == 0
        alone = json.loads(out.read_text())
        assert alone["settings"]["temporal"] == temporal
        for name in ("J", "F", "S", "n", "by_type", "other_recording", "variants"):
            assert alone[name] == figures[name], name
    assert reports[0]["full"]["J"] != reports[0]["J"]
