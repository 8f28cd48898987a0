"""Clips of training from a data set on disk: truths, names, pairing, what is read, and clips that cannot be read."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import wavfile
from torch.nn import functional

from refavs_rt.dataset import DataError
from refavs_rt.log_mel import log_mel
from refavs_rt.train.batches import Batch, BatchConfig, BatchPlan, Clip, clip_rng, collate, plan_batch
from refavs_rt.train.data_source import open_source
from refavs_rt.train.disk_batches import DiskClips, DiskSource
from refavs_rt.train.shares import Shares

from .ref_avs_tree import FRAMES, disc, write_clip, write_clips_of, write_tone, write_tree
from .test_dataset import REAL_TABLE, needs_real_table

CONFIG = BatchConfig(
    image_size=64, late_image_size=96, late_from_step=50, sentences=4, shapes=((10, 3),), decoded_ticks=4
)

FEW_TICKS = BatchPlan(64, 10, (0,), 1)
DRAWS = 40
"""Of six clips: none is missed but by a chance of 0.0007."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree"))


def batch_of(source: DiskSource, step: int, config: BatchConfig = CONFIG, seed: int = 0) -> Batch:
    """Of one process that draws all clips of the step."""
    plan = plan_batch(config, seed, step)
    clips = source.clips(config)
    return collate([clips.draw(plan, clip_rng(seed, step, i)) for i in range(plan.count)], plan.decode)


def table_of(tree: Path, rows: list[tuple[str, str, str, str]]) -> None:
    """`rows`: uid, split, fid, exp."""
    lines = ["vid,uid,split,fid,exp", *(f"v,{uid},{split},{fid},{text}" for uid, split, fid, text in rows)]
    (tree / "metadata.csv").write_text("\n".join(lines) + "\n", "utf-8")


def test_open_source_takes_the_folder(tree: Path, tmp_path: Path) -> None:
    source = open_source(str(tree), tmp_path)
    assert isinstance(source, DiskSource)
    assert source.names == ("blue disc", "green disc", "red disc")
    assert source.material["data"].startswith("6 clips")
    with pytest.raises(FileNotFoundError, match="neither a pack nor a data set"):
        open_source(str(tree / "nowhere"), tmp_path)


def test_clips_draw_from_the_generator_alone(tree: Path) -> None:
    """In any order, from one source or from several, the same clip is the same."""
    one, two = DiskSource(tree).clips(CONFIG), DiskSource(tree).clips(CONFIG)
    assert isinstance(one, DiskClips)
    plan = plan_batch(CONFIG, 0, 7)
    forth = [one.draw(plan, clip_rng(0, 7, i)) for i in range(5)]
    back = [two.draw(plan, clip_rng(0, 7, i)) for i in reversed(range(5))][::-1]
    for first, second in zip(forth, back, strict=True):
        assert (first.name, first.texts) == (second.name, second.texts)
        for name in ("frames", "log_mel", "masks", "names", "referents"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert len({clip.name for clip in forth}) > 2


def test_masks_are_the_share_of_each_cell(tree: Path) -> None:
    """Against torch's adaptive average of the mask pictures."""
    batch = batch_of(DiskSource(tree), 0)
    assert batch.frames.shape == (3, 10, 3, 64, 64) and batch.target.masks.shape == (3, 4, 4, 16, 16)
    clips, known = DiskSource(tree).clips(CONFIG), truths(tree)
    found = 0
    for clip in (clips.draw(FEW_TICKS, clip_rng(0, 0, i)) for i in range(DRAWS)):
        for n, text in enumerate(clip.texts):
            if clip.presence[0, n]:
                errors = [np.abs(clip.masks[0, n] - m.numpy()).max() for t, m in known if t == text]
                assert min(errors) < 1e-5
                found += 1
            else:
                assert not clip.masks[:, n].any()
    assert found >= 4


def truths(tree: Path) -> list[tuple[str, torch.Tensor]]:
    out = []
    for line in (tree / "metadata.csv").read_text().splitlines()[1:]:
        _, uid, _, fid, text = line.split(",")
        path = tree / "gt_mask" / uid.rsplit("_", 2)[0] / f"fid_{fid}" / "00000.png"
        mask = torch.from_numpy(np.array(Image.open(path)) > 0).float()
        out.append((text, exact_cells(mask, 16)))
    return out


def exact_cells(mask: torch.Tensor, side: int) -> torch.Tensor:
    """Mean over cells of fractional size: enlarged until the cells are whole, then averaged."""
    height, width = mask.shape
    whole = mask.repeat_interleave(side, 0).repeat_interleave(side, 1)
    return functional.avg_pool2d(whole[None, None], (height, width))[0, 0]


def test_null_sentences_have_no_mask(tree: Path) -> None:
    source = DiskSource(tree)
    seen = 0
    for step in range(6):
        batch = batch_of(source, step)
        for kinds, masks, presence in zip(
            batch.kinds, batch.target.masks, batch.target.presence, strict=True
        ):
            for n, kind in enumerate(kinds):
                assert kind in ("null", "expression")
                assert bool(presence[:, n].all()) is (kind == "expression")
                assert bool(masks[:, n].any()) is (kind == "expression")
                seen += kind == "null"
    assert seen > 3


def test_cells_are_named_only_where_a_mask_is(tree: Path) -> None:
    """Each cell of a clip's pictures that is mostly one disc has its class; what no disc covers is ignored."""
    source = DiskSource(tree)
    clips = source.clips(CONFIG)
    for clip in (clips.draw(FEW_TICKS, clip_rng(0, 0, i)) for i in range(DRAWS)):
        assert clip.names.shape == (1, 8, 8) and set(np.unique(clip.names)) <= {-2, 0, 1, 2}
        if clip.name.startswith("null"):
            assert (clip.names == -2).all()
            continue
        of_clip: dict[str, torch.Tensor] = {}
        for path in (tree / "gt_mask" / clip.name).iterdir():
            uid = next(
                uid for uid, fid in uids(tree) if uid.startswith(clip.name) and f"fid_{fid}" == path.name
            )
            mask = torch.from_numpy(np.array(Image.open(path / "00000.png")) > 0).float()
            of_clip[uid.rsplit("_", 2)[1].replace("-", " ")] = exact_cells(mask, 8)
        assert len(of_clip) == 2
        for name, share in of_clip.items():
            of_class = clip.names[0] == source.names.index(name)
            np.testing.assert_array_equal(of_class, share.numpy() >= 0.6)


def uids(tree: Path) -> list[tuple[str, str]]:
    """uid and fid of each row."""
    return [
        (line.split(",")[1], line.split(",")[3]) for line in (tree / "metadata.csv").read_text().splitlines()
    ]


def test_a_step_is_the_same_whoever_asks(tree: Path) -> None:
    one, two = DiskSource(tree), DiskSource(tree)
    batch_of(one, 3)
    first, second = batch_of(one, 4), batch_of(two, 4)
    assert first.texts == second.texts and torch.equal(first.frames, second.frames)
    assert torch.equal(first.target.masks, second.target.masks)
    assert not torch.equal(batch_of(one, 5).target.masks, first.target.masks)
    assert batch_of(one, 4, seed=1).texts != first.texts


def test_late_steps_see_large_pictures(tree: Path) -> None:
    assert batch_of(DiskSource(tree), 50).frames.shape[-1] == 96


@pytest.mark.parametrize(("share", "begins_s"), [(1.0, 0.0), (0.0, -0.975)])
def test_sound_is_paired_as_asked(tmp_path: Path, share: float, begins_s: float) -> None:
    """The second that begins at the frame, or the window that ends at it, of noise."""
    tree = write_tree(tmp_path, ("train",))
    noise = np.random.default_rng(0).integers(-9_000, 9_000, 160_000).astype(np.int16)
    for path in tree.glob("media/*/audio.wav"):
        wavfile.write(path, 16_000, noise)
    batch = batch_of(DiskSource(tree), 0, replace(CONFIG, dataset_pairing=share))
    for clip in range(3):
        for tick in (1, 4):
            start = round((tick + begins_s) * 16_000)
            expected = log_mel((noise[start : start + 15_600] / 32_768).astype(np.float32))
            np.testing.assert_allclose(batch.log_mel[clip, tick].numpy(), expected, atol=1e-4)


def broken_tree(folder: Path) -> tuple[Path, Path]:
    """A data set and a broken frame in one of its six clips."""
    tree = write_tree(folder)
    broken = tree / "media" / "clip0_0_10000" / "frames" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    return tree, broken


def test_a_broken_clip_is_told_once_and_replaced_by_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever draws, and whether or not it knows of the broken clip already."""
    tree, broken = broken_tree(tmp_path)
    clips = DiskSource(tree).clips(CONFIG)
    drawn = [clips.draw(FEW_TICKS, clip_rng(0, 0, i)) for i in range(DRAWS)]
    told = capsys.readouterr().err
    assert told.count(f"the clip clip0_0_10000 is skipped wherever it is drawn: {broken} is damaged") == 1
    for i in reversed(range(0, DRAWS, 3)):
        again = DiskSource(tree).clips(CONFIG).draw(FEW_TICKS, clip_rng(0, 0, i))
        assert (again.name, again.texts) == (drawn[i].name, drawn[i].texts)
        np.testing.assert_array_equal(again.log_mel, drawn[i].log_mel)
    assert {clip.name for clip in drawn} >= {"clip1_0_10000", "clip2_0_10000"}
    assert "clip0_0_10000" not in {clip.name for clip in drawn}


def test_what_comes_after_a_broken_clip_does_not_depend_on_the_fault(tmp_path: Path) -> None:
    """A clip that could be read keeps its draw: chance is spent before anything is read, as much for a good clip as for a bad."""
    tree, broken = broken_tree(tmp_path)
    rngs = [clip_rng(0, 0, i) for i in range(DRAWS)]
    before = [DiskSource(tree).clips(CONFIG).draw(FEW_TICKS, rng) for rng in rngs]
    spent = [rng.integers(2**60) for rng in rngs]
    shutil.copy(broken.with_name("2.jpg"), broken)
    rngs = [clip_rng(0, 0, i) for i in range(DRAWS)]
    whole = [DiskSource(tree).clips(CONFIG).draw(FEW_TICKS, rng) for rng in rngs]
    assert any(clip.name == "clip0_0_10000" for clip in whole)
    for one, two, chance, rng in zip(before, whole, spent, rngs, strict=True):
        if two.name != "clip0_0_10000":
            assert (one.name, one.texts, chance) == (two.name, two.texts, rng.integers(2**60))


@pytest.mark.parametrize("what", ["frames/3.jpg", "audio.wav", "masks"])
@pytest.mark.parametrize("content", [None, b"", b"RIFF", b"\xff\xd8\xff\xe0 no picture"])
def test_any_bad_file_of_a_clip_is_a_bad_clip(tmp_path: Path, what: str, content: bytes | None) -> None:
    """All but a sound file that is not there: that is a clip without a track."""
    tree = write_tree(tmp_path, ("train",))
    shutil.rmtree(tree / "media" / "null_c-clip0_0_10000")
    path = tree / "media" / "clip0_0_10000" / what
    if what == "masks":
        path = tree / "gt_mask" / "clip0_0_10000" / "fid_0" / "00005.png"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    clips = DiskSource(tree).clips(CONFIG)
    plan = BatchPlan(64, 10, tuple(range(10)), 1)
    if what == "audio.wav" and content is None:
        assert not clips.draw(plan, clip_rng(0, 0, 0)).has_sound.any()
        return
    with pytest.raises(DataError, match=f"20 clips in a row cannot be read; the last fault: .*{path.name} "):
        clips.draw(plan, clip_rng(0, 0, 0))


def test_workers_tell_of_a_broken_clip_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tree, broken = broken_tree(tmp_path)
    config = replace(CONFIG, shapes=((2, 3),))
    for path in broken.parent.iterdir():
        path.write_bytes(b"no picture")
    shares = Shares(DiskSource(tree).clips(config), config, 0, 0, 1, 0)
    loader = torch.utils.data.DataLoader(shares, batch_size=None, sampler=range(30), num_workers=2)
    for share in loader:
        assert not share.faults and share.batches[0].frames.shape[0] == 3
    assert capfd.readouterr().err.count("the clip clip0_0_10000 is skipped") == 1


def test_what_cannot_be_used_is_told_at_the_start(tmp_path: Path) -> None:
    tree = write_tree(tmp_path)
    shutil.rmtree(tree / "media" / "clip0_0_10000")
    shutil.rmtree(tree / "media" / "clip1_0_10000" / "frames")
    with (tree / "metadata.csv").open("a") as table:
        table.write(
            "v,dog,train,0,A uid without its parts.\nv,c_dog_1,TODO,0,Unsorted.\nv,gone_0_1_a_1,val,0,x\n"
        )
    told: list[str] = []
    source = DiskSource(tree, tell=told.append)
    assert source.material["data"].startswith("4 clips")
    (text,) = told
    assert text.startswith(f"3 clips or rows of the split 'train' of {tree} cannot be used, the first: ")
    assert f"python -m train data --check {tree}" in text
    DiskSource(write_tree(tmp_path / "whole"), tell=told.append)
    assert len(told) == 1


def test_a_split_that_is_missing_is_named(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, ("val",))
    with pytest.raises(DataError, match="train"):
        DiskSource(tree)


def test_validation_is_the_split_val_whole(tree: Path, tmp_path: Path) -> None:
    clips = DiskSource(tree).validation(5, 64)
    assert len(clips) == 2 and {len(clip.frames) for clip in clips} == {FRAMES}
    assert {kind for clip in clips for kind in clip.kinds} == {"null", "expression"}
    assert DiskSource(write_tree(tmp_path, ("train",))).validation(5, 64) == []


# What is read


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The pictures that were opened."""
    paths: list[Path] = []
    original: Callable[[Path], Image.Image] = Image.open

    def recorded(path: Path) -> Image.Image:
        paths.append(path)
        return original(path)

    monkeypatch.setattr(Image, "open", recorded)
    return paths


def test_each_file_that_is_wanted_is_opened_once_and_no_other(tree: Path, opened: list[Path]) -> None:
    """Three of ten frames, the masks of one of them."""
    clips = DiskSource(tree).clips(replace(CONFIG, sentences=6))
    starts = set()
    for i in range(DRAWS):
        opened.clear()
        clip = clips.draw(BatchPlan(64, 3, (1,), 1), clip_rng(0, 0, i))
        frames = sorted(int(path.stem) for path in opened if path.suffix == ".jpg")
        assert len(frames) == 3 and frames == list(range(frames[0], frames[0] + 3))
        masks = [path for path in opened if path.suffix == ".png"]
        expected = 0 if clip.name.startswith("null") else 2
        assert len(masks) == expected and {path.stem for path in masks} <= {f"{frames[1]:05d}"}
        assert len(set(opened)) == len(opened)
        starts.add(frames[0])
    assert len(starts) > 3


def test_clips_shorter_than_the_plan_repeat_their_last_frame(tmp_path: Path, opened: list[Path]) -> None:
    tree = write_tree(tmp_path, ("train",))
    for path in tree.glob("media/*/frames/*.jpg"):
        if int(path.stem) >= 3:
            path.unlink()
    clip = DiskSource(tree).clips(CONFIG).draw(BatchPlan(64, 10, (1, 7), 1), clip_rng(0, 0, 0))
    assert clip.frames.shape == (10, 3, 64, 64) and clip.masks.shape[0] == 2
    for tick in range(3, 10):
        np.testing.assert_array_equal(clip.frames[tick], clip.frames[2])
        np.testing.assert_array_equal(clip.log_mel[tick], clip.log_mel[2])
    assert max(Counter(opened).values()) == 1


def test_frames_are_those_of_the_ticks(tmp_path: Path) -> None:
    """Frame i has the grey 20 i; late starts are drawn too."""
    tree = write_tree(tmp_path, ("train",))
    for path in tree.glob("media/*/frames/*.jpg"):
        Image.new("RGB", (81, 46), (20 * int(path.stem),) * 3).save(path, quality=95)
    clips = DiskSource(tree).clips(CONFIG)
    starts = set()
    for i in range(12):
        clip = clips.draw(BatchPlan(64, 4, (0,), 1), clip_rng(0, 0, i))
        greys = (clip.frames.mean(axis=(1, 2, 3)) * 128 + 127) / 20
        np.testing.assert_allclose(greys - greys[0], np.arange(4), atol=0.1)
        starts.add(round(float(greys[0])))
    assert starts >= {0} and len(starts) > 2 and max(starts) <= 6


def test_sounds_of_any_form_share_a_batch(tmp_path: Path) -> None:
    """Mono and stereo, other rates and sample formats, too short, and none; each patch against the tone made at 16 kHz."""
    tree = write_tree(tmp_path, ("train",) * 6)
    for path in (tree / "media").glob("null_c-*"):
        shutil.rmtree(path)
    forms: dict[str, float] = {}
    for i in range(6):
        path = tree / "media" / f"clip{i}_0_10000" / "audio.wav"
        forms[path.parent.name] = 10.0
        if i == 0:
            write_tone(path, rate=44_100, channels=2)
        elif i == 1:
            write_tone(path, seconds=2.5)
            forms[path.parent.name] = 2.5
        elif i == 2:
            path.unlink()
            forms[path.parent.name] = 0.0
        elif i == 3:
            write_tone(path, rate=48_000, channels=6)
        elif i == 4:
            tone = 8_000 / 32_768 * np.sin(2 * np.pi * 440 * np.arange(320_000) / 32_000)
            wavfile.write(path, 32_000, tone.astype(np.float32))
    clips = DiskSource(tree).clips(replace(CONFIG, dataset_pairing=1.0))
    drawn: dict[str, Clip] = {}
    for i in range(DRAWS):
        clip = clips.draw(FEW_TICKS, clip_rng(0, 0, i))
        drawn.setdefault(clip.name, clip)
    chosen = [drawn[name] for name in forms]
    batch = collate(chosen, (0,))
    assert batch.log_mel.shape == (6, 10, 96, 64)
    times = np.arange(160_000) / 16_000
    for clip, seconds, patches, has_sound in zip(
        chosen, forms.values(), batch.log_mel, batch.has_sound, strict=True
    ):
        wave = np.where(times < seconds, 8_000 / 32_768 * np.sin(2 * np.pi * 440 * times), 0)
        assert bool(has_sound.all()) is bool(has_sound.any()) is (seconds > 0)
        for tick in (0, 3, 8):
            expected = log_mel(wave[16_000 * tick :][:15_600].astype(np.float32))
            inside = slice(3, 93) if seconds == 10 else slice(None)  # resampling blurs the ends of a track
            np.testing.assert_allclose(patches[tick, inside], expected[inside], atol=0.15, err_msg=clip.name)


def test_log_mels_are_kept_in_the_folder_that_is_given(tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    first = batch_of(DiskSource(tree, cache=folder), 0)
    assert list(folder.iterdir())
    assert torch.equal(batch_of(DiskSource(tree, cache=folder), 0).log_mel, first.log_mel)
    assert torch.equal(batch_of(DiskSource(tree), 0).log_mel, first.log_mel)


def test_an_object_of_two_classes_has_none(tmp_path: Path) -> None:
    """Its masks are truths of its sentences; what it is, is ignored."""
    tree = tmp_path
    write_clip(tree, "c_0_1", ["red-disc", "blue-disc"], [disc(0.5, 0.25), disc(0.5, 0.75)])
    table_of(
        tree,
        [
            ("c_0_1_red-disc_1", "train", "0", "one"),
            ("c_0_1_green-disc_1", "train", "0", "two"),
            ("c_0_1_blue-disc_1", "train", "1", "three"),
        ],
    )
    source = DiskSource(tree)
    assert source.names == ("blue disc", "green disc", "red disc")
    clip = source.clips(replace(CONFIG, sentences=3)).draw(BatchPlan(64, 2, (0, 1), 1), clip_rng(0, 0, 0))
    assert set(np.unique(clip.names)) == {-2, 0}
    for text, masks, referents in zip(clip.texts, clip.masks.swapaxes(0, 1), clip.referents.T, strict=True):
        assert masks.any() and (referents == (0 if text == "three" else -2)).all()
        expected = disc(0.5, 0.75 if text == "three" else 0.25)
        np.testing.assert_allclose(masks[0], exact_cells(torch.from_numpy(expected).float(), 16), atol=1e-5)


@needs_real_table
def test_the_real_table_trains_from_few_of_its_clips(tmp_path: Path) -> None:
    """Clips of odd and different sizes, sounds of three rates; names of the table's classes."""
    tree = tmp_path / "tree"
    write_clips_of(REAL_TABLE, tree, clips=3)
    told: list[str] = []
    source = DiskSource(tree, tell=told.append)
    assert told and told[0].startswith("2916 clips or rows of the split 'train'")
    batch = batch_of(source, 0)
    assert batch.frames.shape == (3, 10, 3, 64, 64) and batch.has_sound.all()
    assert torch.isfinite(batch.log_mel).all() and batch.target.masks.any()
    assert len(source.validation(2, 64)) == 2


def test_shares_can_be_drawn_by_a_worker(tree: Path) -> None:
    shares = Shares(DiskSource(tree).clips(CONFIG), CONFIG, 0, 0, 1, 0)
    loader = torch.utils.data.DataLoader(shares, batch_size=None, sampler=range(2), num_workers=1)
    for step, share in enumerate(loader):
        assert torch.equal(share.batches[0].log_mel, batch_of(DiskSource(tree), step).log_mel)
