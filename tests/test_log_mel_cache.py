"""Log-mel patches are computed once a clip and offset, whoever asks, and never from a file that has changed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from refavs_rt.dataset import DataError, read_sound
from refavs_rt.log_mel import log_mel
from refavs_rt.train import log_mel_cache
from refavs_rt.train.log_mel_cache import LogMelCache

from .ref_avs_tree import write_tone


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return tone_at(tmp_path, "clip_0_1")


def tone_at(folder: Path, clip: str, hertz: float = 440) -> Path:
    path = folder / "media" / clip / "audio.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tone(path, seconds=3, hertz=hertz)
    return path


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read as sound."""
    read: list[Path] = []

    def recorded(path: Path) -> object:
        read.append(path)
        return read_sound(path)

    monkeypatch.setattr(log_mel_cache, "read_sound", recorded)
    return read


def tone_patch(second: float, hertz: float = 440) -> np.ndarray:
    """Of a window that begins at `second`; made anew by the test."""
    times = np.arange(16_000 * 3) / 16_000
    wave = np.trunc(8_000 * np.sin(2 * np.pi * hertz * times)) / 32_768
    start = round(16_000 * second)
    return log_mel(wave[start : start + 15_600].astype(np.float32))


@pytest.mark.parametrize("on_disk", [False, True])
def test_computed_once_a_clip_and_offset(
    sound: Path, tmp_path: Path, computed: list[Path], on_disk: bool
) -> None:
    cache = LogMelCache(tmp_path / "cache" if on_disk else None)
    for _ in range(3):
        for offset_s, second in ((0.975, 1.0), (0.0, 0.025)):
            patches, has_sound = cache.patches(sound, 3, offset_s)
            assert has_sound and patches.shape == (3, 96, 64) and patches.dtype == np.float32
            np.testing.assert_allclose(patches[1], tone_patch(second), atol=1e-4)
            with pytest.raises(ValueError, match="read-only"):
                patches[0] = 0
    assert computed == [sound] * 2
    assert LogMelCache(cache.folder).patches(sound, 3, 0.975)[0].shape == (3, 96, 64)
    assert len(computed) == (2 if on_disk else 3)
    cache.patches(sound, 2, 0.975)  # another number of frames is another thing
    assert len(computed) == (3 if on_disk else 4)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_file_that_has_changed_is_read_again(sound: Path, tmp_path: Path, on_disk: bool) -> None:
    """Whether its size changes or only its time."""
    folder = tmp_path / "cache" if on_disk else None
    cache = LogMelCache(folder)
    before = cache.patches(sound, 3, 0.975)[0]
    time_ns = sound.stat().st_mtime_ns
    write_tone(sound, seconds=3, hertz=1_000)
    os.utime(sound, ns=(time_ns + 10**9, time_ns + 10**9))
    after = cache.patches(sound, 3, 0.975)[0]
    np.testing.assert_allclose(after[1], tone_patch(1, 1_000), atol=1e-4)
    assert np.abs(after - before).max() > 1
    write_tone(sound, seconds=2.5, hertz=1_000)
    os.utime(sound, ns=(time_ns + 10**9, time_ns + 10**9))
    assert np.abs(cache.patches(sound, 3, 0.975)[0] - after).max() > 1


def test_clips_and_moved_data_sets(tmp_path: Path, computed: list[Path]) -> None:
    """Clips of equal size and time are told apart; one that moves with its data set is the same."""
    one, two = tone_at(tmp_path, "one_0_1"), tone_at(tmp_path, "two_0_1", hertz=900)
    for path in (one, two):
        os.utime(path, ns=(10**18, 10**18))
    first = [LogMelCache(tmp_path / "cache").patches(path, 3, 0.975)[0] for path in (one, two)]
    np.testing.assert_allclose(first[1][0], tone_patch(0, 900), atol=1e-4)
    moved = tmp_path / "elsewhere"
    (tmp_path / "media").rename(moved)
    again = LogMelCache(tmp_path / "cache").patches(moved / "one_0_1" / "audio.wav", 3, 0.975)[0]
    np.testing.assert_array_equal(again, first[0])
    assert len(computed) == 2


def test_a_cut_file_of_the_cache_is_computed_anew(sound: Path, tmp_path: Path, computed: list[Path]) -> None:
    folder = tmp_path / "cache"
    expected = LogMelCache(folder).patches(sound, 3, 0.975)[0]
    (kept,) = folder.iterdir()
    for content in (b"", kept.read_bytes()[:-1], kept.read_bytes() + b"\0"):
        kept.write_bytes(content)
        np.testing.assert_array_equal(LogMelCache(folder).patches(sound, 3, 0.975)[0], expected)
        assert kept.stat().st_size == expected.nbytes
    assert len(computed) == 4
    assert list(folder.iterdir()) == [kept]  # nothing half-written is left


def test_a_folder_that_cannot_be_written_stops_nothing(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "file"
    folder.write_text("no folder")
    cache = LogMelCache(folder, memory_bytes=0)
    for _ in range(3):
        assert cache.patches(sound, 3, 0.975)[1]
    assert capsys.readouterr().err.count(f"note: log-mels are no longer kept in {folder}: ") == 1


def test_memory_is_bounded(tmp_path: Path, computed: list[Path]) -> None:
    """Three of four clips fit; what was asked for longest ago goes."""
    sounds = [tone_at(tmp_path, f"c{i}_0_1") for i in range(4)]
    size = 3 * 96 * 64 * 4
    cache = LogMelCache(memory_bytes=3 * size + 1)
    for i in (0, 1, 2, 0, 3, 0):
        cache.patches(sounds[i], 3, 0.0)
    assert [sounds.index(path) for path in computed] == [0, 1, 2, 3]
    cache.patches(sounds[1], 3, 0.0)  # it had to go for the last
    cache.patches(sounds[0], 3, 0.0)
    assert [sounds.index(path) for path in computed] == [0, 1, 2, 3, 1]
    assert sum(patches.nbytes for patches in cache._known.values()) == cache._bytes == 3 * size


def test_no_file_is_silent_and_a_bad_one_is_named(sound: Path, tmp_path: Path) -> None:
    cache = LogMelCache(tmp_path / "cache")
    patches, has_sound = cache.patches(tmp_path / "nowhere" / "audio.wav", 4, 0.975)
    assert not has_sound and patches.shape == (4, 96, 64)
    np.testing.assert_allclose(patches, np.log(0.01), rtol=1e-6)
    sound.write_bytes(sound.read_bytes()[:500])
    with pytest.raises(DataError, match=r"audio\.wav cannot be read: it ends too early"):
        cache.patches(sound, 3, 0.975)
    sound.unlink()
    sound.mkdir()
    with pytest.raises(DataError, match=r"audio\.wav cannot be read"):
        cache.patches(sound, 3, 0.975)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = tone_at(tmp_path, os.fsdecode(b"\xff\xfe_0_1"))
    cache = LogMelCache(tmp_path / "cache")
    assert cache.patches(path, 3, 0.975)[1]
    (kept,) = (tmp_path / "cache").iterdir()
    assert stat.S_ISREG(kept.stat().st_mode) and kept.name.isascii()
