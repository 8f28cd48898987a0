"""Pictures and sounds: packing them without loss, refusing what is damaged, and saying what to install."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from refavs_rt.train.material import MaterialError, Pack, bank, build, build_pack, catalogue
from refavs_rt.train.material.pack import decode_sound, encode_sound
from refavs_rt.train.material.rcc import read_rcc
from refavs_rt.train.material.waves import active_intervals, frame_levels, level, trim

from .clips import ffmpeg

RATE = 16000

# The pack


@given(st.lists(st.integers(-32768, 32767), max_size=300))
def test_sounds_come_back_exactly(samples: list[int]) -> None:
    array = np.array(samples, np.int16)
    back = decode_sound(encode_sound(array))
    assert back.dtype == np.int16 and back.tolist() == samples


def test_a_missing_pack_is_told_how_to_be_built(tmp_path: Path) -> None:
    with pytest.raises(MaterialError, match=r"none.pack is missing; build it with: python -m train scenes"):
        Pack.load(tmp_path / "none.pack")
    with pytest.raises(MaterialError, match="cannot be read: Is a directory"):
        Pack.load(tmp_path)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_a_damaged_pack_is_refused_or_gives_the_same(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Bytes changed anywhere, or an end that is missing: never another error, never other contents."""
    path = tmp_path_factory.getbasetemp() / "damaged.pack"
    place = {"entry": "a", "origin": "a", "split": "train", "licence": "none"}
    whole = _small_zip({**_EMPTY, "backgrounds": [place]})
    broken = bytearray(whole)
    if data.draw(st.booleans()):
        broken[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        broken = broken[: data.draw(st.integers(0, len(whole) - 1))]
    path.write_bytes(broken)
    try:
        pack = Pack.load(path)
    except MaterialError as error:
        assert str(path) in str(error) and "delete it and build it anew" in str(error)
    else:
        assert pack._entries["a"] == b"contents of a"


def _small_zip(index: object) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo("index.json"), json.dumps(index))
        archive.writestr(zipfile.ZipInfo("a"), b"contents of a")
    return out.getvalue()


_EMPTY: dict[str, object] = {
    "format": 2,
    "splits": [],
    "things": [],
    "backgrounds": [],
    "ambiences": [],
    "photos": [],
}


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({**_EMPTY, "format": 0}, "has pack format 0, this program reads 2"),
        ([], "has no readable index.json"),
        ({}, "has no readable index.json"),
        ({"format": 2}, "its index.json lacks something"),
        ({**_EMPTY, "things": [{"name": "dog"}]}, "its index.json lacks something"),
        ({**_EMPTY, "backgrounds": [{"entry": "b", "origin": "", "split": "", "licence": ""}]}, "it lacks b"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path: Path, index: object, said: str) -> None:
    path = tmp_path / "odd.pack"
    path.write_bytes(_small_zip(index))
    with pytest.raises(MaterialError, match=said) as caught:
        Pack.load(path)
    assert str(path) in str(caught.value) and "delete it and build it anew" in str(caught.value)


def test_a_cutout_is_halved_until_it_is_near_the_size_asked_for(tiny: Pack) -> None:
    entry = tiny.by_name["dog"].pictures[0].entry
    for width, given_width in ((200, 60), (60, 60), (31, 60), (30, 30), (12, 15), (1, 15)):
        assert tiny.cutout(entry, width).width == given_width
    assert tiny.cutout(entry, 60).mode == "RGBa"


# Qt's archives, written here after the description of the format, for the reader to read


def _write_rcc(files: dict[str, bytes], version: int, packed: bool) -> bytes:
    """A tree of one folder `d` with these files in it."""
    names, data, name_at, data_at = b"", b"", {}, {}
    for name in ("d", *files):
        name_at[name] = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    for name, content in files.items():
        data_at[name] = len(data)
        blob = struct.pack(">I", len(content)) + zlib.compress(content) if packed else content
        data += struct.pack(">I", len(blob)) + blob
    stamp = b"\0" * 8 if version >= 2 else b""
    tree = struct.pack(">IHII", 0, 2, 1, 1) + stamp
    tree += struct.pack(">IHII", name_at["d"], 2, len(files), 2) + stamp
    for name in files:
        tree += struct.pack(">IHHHI", name_at[name], 1 if packed else 0, 0, 0, data_at[name]) + stamp
    header = 20 if version < 3 else 24
    places = (header, header + len(tree), header + len(tree) + len(data))
    overall = struct.pack(">I", 0) if version >= 3 else b""
    return struct.pack(">4sIIII", b"qres", version, *places) + overall + tree + data + names


_FILES = {"one.ogg": b"first" * 50, "zwei_ü.webp": b"", "three": bytes(range(256))}


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("packed", [False, True])
def test_an_archive_is_read(tmp_path: Path, version: int, packed: bool) -> None:
    path = tmp_path / "a.rcc"
    path.write_bytes(_write_rcc(_FILES, version, packed))
    assert read_rcc(path) == {f"/d/{name}": content for name, content in _FILES.items()}


@pytest.mark.parametrize("packed", [False, True])
def test_a_truncated_archive_is_refused_wherever_it_ends(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "cut.rcc"
    whole = _write_rcc(_FILES, 2, packed)
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(MaterialError, match="cut.rcc"):
            read_rcc(path)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_no_archive(tmp_path_factory: pytest.TempPathFactory, garbage: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.rcc"
    for content in (garbage, b"qres" + garbage):
        path.write_bytes(content)
        with pytest.raises(MaterialError, match="garbage.rcc"):
            read_rcc(path)


def test_a_ring_of_folders_and_zstd_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.rcc"
    ring = bytearray(_write_rcc({"x": b"x"}, 1, False))
    struct.pack_into(">II", ring, 20 + 14 + 6, 1, 1)  # the folder d holds itself
    path.write_bytes(ring)
    with pytest.raises(MaterialError, match="cannot be read"):
        read_rcc(path)
    squeezed = bytearray(_write_rcc({"x": b"x"}, 1, False))
    struct.pack_into(">H", squeezed, 20 + 2 * 14 + 4, 4)
    path.write_bytes(squeezed)
    with pytest.raises(MaterialError, match="zstd"):
        read_rcc(path)
    with pytest.raises(MaterialError, match="apt-get install gcompris-qt-data"):
        read_rcc(tmp_path / "none.rcc")


# Building


def test_missing_media_packages_give_the_apt_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MaterialError) as caught:
        build_pack(tmp_path / "p.pack", stamps=tmp_path, gcompris=tmp_path, soundfonts=tmp_path)
    said = str(caught.value)
    packages = ("tuxpaint-stamps-default", "gcompris-qt-data", "timgm6mb-soundfont", "fluid-soundfont-gm")
    for package in (*packages, "ffmpeg", "fluidsynth"):
        assert said.count(package) == 2  # missing, and in the line to run
    assert "apt-get install" in said and "\n" not in said
    assert not list(tmp_path.iterdir())
    with pytest.raises(MaterialError, match="apt-get install ffmpeg"):
        build.decode_audio(b"")
    with pytest.raises(MaterialError, match="apt-get install fluidsynth"):
        bank.render_instrument(tmp_path, "violin", 0, 1.0)


@pytest.mark.media
def test_the_same_media_make_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From media made here: two stamps, a photograph, an ambience, and a second recording, all small."""
    stamps, gcompris, fonts = (tmp_path / name for name in ("stamps", "gcompris", "fonts"))
    for folder in (stamps / "animals/mammals/dogs", gcompris, fonts):
        folder.mkdir(parents=True)
    picture = np.zeros((40, 50, 4), np.uint8)
    picture[5:30, 10:45] = (200, 100, 50, 255)
    for name in ("dog", "fox"):
        Image.fromarray(picture).save(stamps / f"animals/mammals/dogs/{name}.png")
    (stamps / "animals/mammals/dogs/dog.txt").write_text("A dog.\nde.utf8=Ein Hund.\n")
    ogg = stamps / "animals/mammals/dogs/dog.ogg"
    ffmpeg(
        "-f", "lavfi", "-i", "sine=frequency=440:duration=1", "-ar", 44100, "-c:a", "flac", "-f", "ogg", ogg
    )
    wide = io.BytesIO()
    Image.fromarray(np.full((300, 900, 3), 90, np.uint8)).save(wide, "WEBP")
    archives = {
        "explore_monuments": {"petra.webp": wide.getvalue()},
        "memory-sound": {"rain.ogg": ogg.read_bytes(), "bark.ogg": ogg.read_bytes()},
    }
    for name, files in archives.items():
        (gcompris / f"{name}.rcc").write_bytes(_write_rcc(files, 2, True))
    for name in ("TimGM6mb.sf2", "FluidR3_GM.sf2"):
        (fonts / name).touch()
    monkeypatch.setattr(
        catalogue,
        "TABLE",
        "[animals/mammals/dogs]\ndog | +dog | hound | animal | bark\nfox | fox | | animal |",
    )
    monkeypatch.setattr(catalogue, "UNSEEN", frozenset())
    monkeypatch.setattr(build, "INSTRUMENTS", {})
    monkeypatch.setattr(build, "BACKDROPS", (("explore_monuments", "petra", "train"),))
    monkeypatch.setattr(build, "AMBIENCES", {"memory-sound": {"rain": "train"}})
    monkeypatch.setattr(build, "MORE_RECORDINGS", {"dog": ("bark",)})
    for table in ("FARM_RECORDINGS", "INSTRUMENT_RECORDINGS"):
        monkeypatch.setattr(build, table, {})
    monkeypatch.setattr(build, "PHOTO_FOLDERS", ())
    built = []
    for name in ("a.pack", "b.pack"):
        done: list[int] = []
        path = build_pack(
            tmp_path / "new" / name,
            stamps=stamps,
            gcompris=gcompris,
            soundfonts=fonts,
            progress=_noting(done),
        )
        built.append(path.read_bytes())
        assert done == list(range(1, 6))  # two classes and three kinds of other entries
    assert built[0] == built[1]
    assert [p.name for p in sorted((tmp_path / "new").iterdir())] == ["a.pack", "b.pack"]
    pack = Pack.load(tmp_path / "new/a.pack")
    dog = pack.by_name["dog"]
    assert (dog.pictures[0].width, dog.pictures[0].height, dog.pictures[0].caption) == (35, 25, "A dog.")
    assert [r.source for r in dog.recordings] == ["stamp", "gcompris"] and not pack.by_name["fox"].recordings
    tone = pack.sound(dog.recordings[0].entry)
    assert len(tone) == pytest.approx(RATE, abs=400) and _main_hz(tone) == pytest.approx(440, abs=2)
    assert pack.picture(pack.backgrounds[0].entry).size == (720, 240)


def _noting(done: list[int]) -> Callable[[int, int], None]:
    return lambda step, steps: done.append(step)


def _main_hz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples))
    return float(np.argmax(spectrum) * RATE / len(samples))


@pytest.mark.media
def test_the_real_pack(pack: Pack) -> None:
    """Its recordings are at one level, its held-out ones are not among those of training, its sources are named."""
    splits: dict[str, set[str]] = {}
    for thing in pack.things:
        assert thing.pictures and (thing.verb is None or thing.recordings or thing.unseen)
        for recording in thing.recordings:
            samples = pack.sound(recording.entry)
            assert len(samples) == round(recording.seconds * RATE) <= 10 * RATE
            assert np.abs(samples).max() < 0.99 and recording.licence.startswith(("GPL-2+", "GPL-3+", "MIT"))
            edges = [t for interval in recording.active for t in interval]
            assert edges == sorted(edges) and edges[0] >= 0 and edges[-1] <= recording.seconds + 1e-3
            digest = hashlib.sha256(samples.tobytes()).hexdigest()
            splits.setdefault(digest, set()).add("never" if thing.unseen else recording.split)
        for picture in thing.pictures:
            alpha = np.asarray(pack.cutout(picture.entry, picture.width))[..., 3]
            assert alpha.shape == (picture.height, picture.width) and alpha.max() > 200
    assert all(len(found) == 1 for found in splits.values())
    assert len(pack.things) > 180 and sum(t.unseen for t in pack.things) > 30
    assert {r.split for t in pack.things for r in t.recordings if r.source == "bank:timgm"} == {"train"}
    assert "train" not in {r.split for t in pack.things for r in t.recordings if r.source == "bank:fluidr3"}
    for images in (pack.backgrounds, pack.photos):
        for image in images:
            assert min(pack.picture(image.entry).size) > 100
    assert not {b.origin for b in pack.backgrounds} & {p.origin for p in pack.photos}


@pytest.mark.media
@pytest.mark.parametrize("name", ["violin", "drum kit", "electric guitar"])
def test_a_melody_is_the_same_each_time(name: str) -> None:
    font = build.SOUNDFONTS / "TimGM6mb.sf2"
    one, two, other = (bank.render_instrument(font, name, seed, 2.0) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, two)
    assert len(one) == 2 * RATE and np.abs(one.astype(int)).max() > 300
    assert not np.array_equal(one, other)


def test_midi_numbers_are_written_as_the_standard_says() -> None:
    """Examples from the MIDI file specification."""
    for value, coded in ((0, "00"), (0x7F, "7f"), (0x80, "8100"), (0x2000, "c000"), (0x1FFFFF, "ffff7f")):
        assert bank._variable_length(value).hex() == coded


# Recordings made alike


def _silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.int16)


def _tone(seconds: float, amplitude: float) -> np.ndarray:
    return np.round(amplitude * np.sin(2 * np.pi * 500 * np.arange(round(seconds * RATE)) / RATE)).astype(
        np.int16
    )


def test_intervals_are_where_the_tones_are() -> None:
    sound = np.concatenate(
        [_tone(1, 8000), _silence(0.5), _tone(0.4, 8000), _silence(0.08), _tone(0.5, 8000)]
    )
    assert active_intervals(sound) == [(0.0, 1.0), (1.5, pytest.approx(2.48))]
    quiet = np.concatenate([_tone(1, 8000), _tone(1, 200)])  # -32 dB: not heard beside the loud part
    assert active_intervals(quiet) == [(0.0, 1.0)]


def test_silence_is_cut_off_and_loudness_is_made_alike() -> None:
    sound = np.concatenate([_silence(0.7), _tone(1, 500), _silence(1.1)])
    cut = trim(sound)
    np.testing.assert_array_equal(cut, _tone(1, 500))
    for amplitude in (60, 500, 30000):
        loud = level(_tone(1, amplitude)).astype(np.float64)
        assert 20 * np.log10(np.sqrt(np.mean(loud**2)) / 32768) == pytest.approx(-20, abs=0.1)
    click = _silence(1)
    click[::4000] = 3000  # would clip at that level
    assert np.abs(level(click).astype(int)).max() == 32000
    assert frame_levels(np.ones(321, np.float32)).tolist() == pytest.approx([1, (1 / 320) ** 0.5])
    with pytest.raises(ValueError, match="silent"):
        trim(_silence(1))
    with pytest.raises(ValueError, match="silent"):
        trim(_silence(0))


# The catalogue


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[a]\ndog | dog | | animal", "4 fields"),
        ("[a]\ndog | dog | | | \ndog | dog | | | ", "twice"),
        ("", "unseen"),
    ],
)
def test_a_malformed_catalogue_is_refused(monkeypatch: pytest.MonkeyPatch, table: str, said: str) -> None:
    monkeypatch.setattr(catalogue, "TABLE", table)
    with pytest.raises(ValueError, match=said):
        catalogue.catalogue()


def test_the_catalogue_has_each_picture_once() -> None:
    classes = catalogue.catalogue()
    stamps = [stamp for thing in classes for stamp in thing.stamps]
    assert len(stamps) == len(set(stamps))
    for thing in classes:
        assert not {thing.name, *thing.aliases} & set(thing.confusable)
        assert set(thing.voiced) <= set(thing.stamps)
