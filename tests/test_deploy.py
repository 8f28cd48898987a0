"""What stands in deploy/ against the code: options, packages, files, exit codes."""

from __future__ import annotations

import configparser
import importlib.util
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from refavs_rt import exit_codes
from refavs_rt.cli import main, parser
from refavs_rt.commands import stream

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "refavs-rt.service"
DOCKERFILES = (DEPLOY / "Dockerfile", DEPLOY / "Dockerfile.jetson")


# The unit


def environment() -> dict[str, str]:
    """The example's variables, as systemd and a shell read such a file."""
    lines = (DEPLOY / "refavs-rt.env.example").read_text().splitlines()
    return dict(
        shlex.split(line)[0].split("=", 1) for line in lines if line.strip() and not line.startswith("#")
    )


def unit() -> dict[str, dict[str, list[str]]]:
    """Section -> key -> values, of which a unit may have several."""
    sections: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = sections.setdefault(match[1], {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return sections


def command() -> list[str]:
    """ExecStart with the example's variables in their places; `${NAME}` is one word, whatever is in it."""
    variables = environment()
    (line,) = unit()["Service"]["ExecStart"]
    return [re.sub(r"\$\{(\w+)\}", lambda match: variables[match[1]], word) for word in line.split()]


def test_the_unit_runs_what_the_command_line_takes() -> None:
    program, *words = command()
    assert Path(program).name == "refavs-rt" and Path(program).is_absolute()
    args = parser().parse_args(words)
    assert args.command is stream.run
    assert args.text == ["the person who speaks"] and args.camera == "0" and args.serve == "0.0.0.0:8765"
    assert args.log_format == "json"


def test_the_token_is_in_the_environment_alone() -> None:
    assert stream._TOKEN in environment()
    assert stream._TOKEN not in (unit()["Service"]["ExecStart"][0]) and "--token" not in command()
    assert unit()["Service"]["EnvironmentFile"] == ["/etc/refavs-rt.env"]


def test_the_token_of_the_environment_reaches_the_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    camera = "lavfi:testsrc2=size=64x48:rate=25"
    words = ["stream", "--camera", camera, "--mic", "none", "--text", "the dog", "--max-frames", "1"]
    words += ["--serve", "127.0.0.1:0"]
    monkeypatch.setenv("REFAVS_TOKEN", "from-the-environment")
    assert main(words) == 0
    assert "?token=from-the-environment" in capsys.readouterr().out
    assert main([*words, "--token", "given"]) == 0
    assert "?token=given" in capsys.readouterr().out
    monkeypatch.delenv("REFAVS_TOKEN")
    assert main(words) == 0
    assert "token" not in capsys.readouterr().out


def test_the_unit_knows_the_exit_codes() -> None:
    service = unit()["Service"]
    assert service["Restart"] == ["on-failure"]
    assert service["SuccessExitStatus"] == [str(int(exit_codes.TERMINATED))]
    assert service["RestartPreventExitStatus"] == [str(exit_codes.USAGE)]
    assert {"video", "audio"} == set(service["SupplementaryGroups"][0].split())


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text().replace("/opt/refavs-rt/bin/refavs-rt", "/bin/true")
    (tmp_path / UNIT.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / UNIT.name)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


# The images


def instructions(path: Path) -> list[tuple[str, list[str]]]:
    """(instruction, its words), with lines that go on put together and comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.split()[1:]) for line in whole.splitlines() if line.strip()]


def installed(path: Path) -> list[set[str]]:
    """The Debian packages of each RUN that installs some."""
    found = []
    for name, words in instructions(path):
        if name == "RUN" and "apt-get" in words and "install" in words:
            rest = words[words.index("install") + 1 :]
            rest = rest[: rest.index("&&")]
            found.append({word for word in rest if not word.startswith("-")})
    return found


@pytest.fixture
def bootstrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """bootstrap.py on a machine that has nothing."""
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "bootstrap.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    return module


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_installs_what_bootstrap_asks_for(path: Path, bootstrap: ModuleType) -> None:
    bare = bootstrap.Interpreter("/usr/bin/python3", (3, 11), False, False)
    wanted = {name.replace("python3.11", "python3") for name in bootstrap._missing_for_core(bare)}
    assert len(wanted) == 4 + len(bootstrap.LIBRARIES)
    assert wanted <= installed(path)[0]
    if path.name == "Dockerfile":
        assert wanted == installed(path)[0]


def test_the_image_has_the_libraries_that_the_extension_was_built_with(bootstrap: ModuleType) -> None:
    run_time = installed(DEPLOY / "Dockerfile")[1]
    names = {re.sub(r"\d+$", "", package) for package in run_time} - {"python"}
    assert names == set(bootstrap.LIBRARIES)


def test_the_libraries_have_the_numbers_of_the_image(bootstrap: ModuleType, tmp_path: Path) -> None:
    release = configparser.ConfigParser()
    release.read_string("[os]\n" + Path("/etc/os-release").read_text())
    base = next(words[0] for name, words in instructions(DEPLOY / "Dockerfile") if name == "FROM")
    here = f"{release['os'].get('id')}:{release['os'].get('version_id', '').strip(chr(34))}"
    program = shutil.which("pkg-config", path="/usr/bin:/usr/local/bin")
    if not base.startswith(here) or program is None:
        pytest.skip(f"the image is of {base}, this machine {here}")
    for name in bootstrap.LIBRARIES:
        version = subprocess.run([program, "--modversion", name], capture_output=True, text=True, check=True)
        assert f"{name}{version.stdout.split('.')[0]}" in installed(DEPLOY / "Dockerfile")[1]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_an_image_copies_is_there_and_is_sent(path: Path) -> None:
    sent = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    sources = [
        source
        for name, words in instructions(path)
        if name == "COPY" and not words[0].startswith("--from")
        for source in words[:-1]
    ]
    assert sources and all((ROOT / source).exists() for source in sources)
    assert set(sources) == sent
    # All that a wheel is built from: the links inside refavs_rt lead to the folders beside it.
    links = {link.name for link in (ROOT / "refavs_rt").iterdir() if link.is_symlink()}
    assert {"csrc", "refavs_rt", "CMakeLists.txt", "pyproject.toml", *links} <= set(sources)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_runs_the_command_as_nobody_special(path: Path) -> None:
    last = dict(instructions(path))
    assert last["USER"] == ["refavs"]
    assert last["ENTRYPOINT"] == ['["refavs-rt"]'] and last["CMD"] == ['["doctor"]']
    made = " ".join(" ".join(words) for name, words in instructions(path) if name == "RUN")
    assert "useradd --system --create-home --groups video,audio refavs" in made


def test_a_jetson_gets_the_tensorrt_of_its_system() -> None:
    runs = [" ".join(words) for name, words in instructions(DEPLOY / "Dockerfile.jetson") if name == "RUN"]
    assert "python3-libnvinfer" in installed(DEPLOY / "Dockerfile.jetson")[0]
    assert any("venv --system-site-packages" in run and '"/src[trt]"' in run for run in runs)


# The page


def commands_of_the_page() -> list[list[str]]:
    """What deploy/README.md runs of refavs-rt in a container."""
    text = (DEPLOY / "README.md").read_text().replace("\\\n", " ")
    words = [shlex.split(line, comments=True) for line in text.splitlines() if "docker run" in line]
    images = [line for line in words if "refavs-rt" in line]
    return [line[line.index("refavs-rt") + 1 :] for line in images]


def test_the_page_runs_what_the_command_line_takes() -> None:
    commands = commands_of_the_page()
    assert [words[:1] for words in commands] == [[], ["stream"], ["stream"], [], ["stream"]]
    for words in commands:
        assert callable(parser().parse_args(words or ["doctor"]).command)


def test_the_page_names_files_that_are_there() -> None:
    for name in re.findall(r"deploy/([\w.-]+)", (DEPLOY / "README.md").read_text()):
        assert (DEPLOY / name.rstrip(".")).is_file()
