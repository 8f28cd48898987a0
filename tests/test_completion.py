"""`refavs-rt completion`, as a real shell uses what it prints."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from refavs_rt.cli import main, parser
from refavs_rt.config import ENGINES

COMMANDS = ["stream", "info", "verify", "doctor", "bench", "completion"]


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


def options_in_help(command: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """What --help lists, as argparse prints it."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    rows = re.findall(r"^  (-.*?)(?:  |$)", capsys.readouterr().out, re.MULTILINE)
    return {option for row in rows for option in re.findall(r"(?:^|\s)(-{1,2}[a-z][a-z-]*)", row)}


class Bash:
    """Asks bash what it would offer for the last of some words."""

    def __init__(self, completions: str, folder: Path) -> None:
        self._folder = folder
        self._file = folder / ".completions"
        self._file.write_text(completions)

    def offers(self, *words: str) -> set[str]:
        program = f"""
            source {shlex.quote(str(self._file))}
            COMP_WORDS=({shlex.join(["refavs-rt", *words])}); COMP_CWORD={len(words)}
            read -r -a how <<< "$(complete -p refavs-rt)"
            for i in "${{!how[@]}}"; do [[ "${{how[i]}}" == -F ]] && function="${{how[i+1]}}"; done
            "$function"
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(
            ["bash", "--norc", "-c", program],
            capture_output=True,
            text=True,
            check=True,
            cwd=self._folder,
            timeout=60,
        )
        assert "syntax error" not in done.stderr, done.stderr
        return set(done.stdout.split())


@pytest.fixture
def bash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bash:
    return Bash(script("bash", capsys), tmp_path)


@needs("bash")
def test_bash_offers_the_commands(bash: Bash) -> None:
    assert bash.offers("") == set(COMMANDS)
    assert bash.offers("ver") == {"verify"}
    assert "--version" in bash.offers("--")


@needs("bash")
@pytest.mark.parametrize("command", COMMANDS)
def test_bash_offers_the_options_of_a_command(
    bash: Bash, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bash.offers(command, "-") == options_in_help(command, capsys)


@needs("bash")
def test_bash_offers_values_files_and_folders(bash: Bash, tmp_path: Path) -> None:
    (tmp_path / "video.mp4").touch()
    (tmp_path / "bundles").mkdir()
    assert bash.offers("stream", "--engine", "") == set(ENGINES)
    assert bash.offers("bench", "--engine", "onnx-") == {"onnx-cuda", "onnx-tensorrt"}
    assert bash.offers("stream", "--log-format", "j") == {"json"}
    assert bash.offers("stream", "--text", "a dog", "--out", "vid") == {"video.mp4"}
    assert bash.offers("stream", "--bundle", "") == {"bundles"}
    assert bash.offers("verify", "b") == {"bundles"}
    assert bash.offers("completion", "") == {"bash", "zsh", "fish"}


@needs("fish")
def test_fish_offers_commands_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "refavs-rt.fish"
    file.write_text(script("fish", capsys))

    def offers(line: str) -> set[str]:
        program = f"source {shlex.quote(str(file))}; complete -C {shlex.quote(line)}"
        done = subprocess.run(
            ["fish", "--no-config", "-c", program],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            timeout=60,
        )
        return {row.split("\t")[0] for row in done.stdout.splitlines()}

    assert set(COMMANDS) <= offers("refavs-rt ")
    assert "--engine" in offers("refavs-rt stream --eng")
    assert set(ENGINES) <= offers("refavs-rt stream --engine ")


@needs("zsh")
def test_zsh_reads_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "_refavs-rt"
    file.write_text(script("zsh", capsys))
    subprocess.run(["zsh", "-f", "-n", str(file)], check=True, timeout=60)
    program = f'autoload -Uz compinit; compinit -u -D; eval "$(<{shlex.quote(str(file))})"; print $_comps[refavs-rt]'
    done = subprocess.run(
        ["zsh", "-f", "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "_shtab_refavs_rt"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_every_option(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed = script(shell, capsys)
    names = options_in_help("stream", capsys)
    missing = [name for name in names if name.startswith("--") and name.lstrip("-") not in printed]
    assert missing == []


def test_printing_does_not_change_the_parser(capsys: pytest.CaptureFixture[str]) -> None:
    assert script("bash", capsys) == script("bash", capsys)
    assert parser().format_help() == parser().format_help()


def test_without_shtab_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.endswith("pip install shtab\n")


def test_an_unknown_shell_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["completion", "csh"])
    assert stopped.value.code == 2 and "csh" in capsys.readouterr().err
