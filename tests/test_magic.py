"""The type of .eoc files is known to file(1) and to desktops; completion works in shells."""

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from eocodec_cli import COMMANDS
from eocodec_cli.completion import FILES
from paths import SAMPLES, Runner, environment
from PIL import Image
from sheets import small

from eocodec.codec import compress
from eocodec.format import MAGIC, VERSION, File, Header, serialise
from eocodec.model.library import load_model

DESKTOP = SAMPLES / "desktop"


def tool(name: str) -> str:
    """Path of a program that the machine may lack."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Files of every kind, and others, by what they are called."""
    colour = np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB"))[100:140, 150:210]
    grey = colour[..., 1]
    seen_through = np.dstack([colour, np.full(colour.shape[:2], 90, np.uint8)])
    contents = {
        "": compress(colour, 50),
        ", grey": compress(grey, 50),
        " ": compress(seen_through, 50, tune="psnr"),
        "  ": compress(colour, 50, tune="psnr"),
        ", progressive": compress(colour, 50, progressive=True),
        ", lossless": compress(colour, lossless=True),
        ", page": compress(small(), 96),
        ", grey ": serialise(File(Header(load_model("photo").id, 8, 8, 64, 40000, grey=True, axes=1), b"alpha", ())),
        "foreign": b"EOC\x02" + bytes(50),
        "text": b"EOC is three letters",
    }
    paths = {}
    for i, (kind, content) in enumerate(contents.items()):
        paths[kind] = tmp_path / str(i)
        paths[kind].write_bytes(content)
    return paths


def test_file_knows_every_kind_by_content(files: dict[str, Path]) -> None:
    file = tool("file")

    def told(*arguments: object) -> str:
        command = [file, "-b", "-m", DESKTOP / "eoc.magic", *arguments]
        return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout.strip()

    for kind, path in files.items():
        if kind in ("foreign", "text"):
            assert "eocodec" not in told(path) and told("--mime-type", path) != "image/x-eoc"
        else:
            assert told(path) == f"eocodec image{kind.rstrip()}, model {load_model('photo').id.hex()}"
            assert told("--mime-type", path) == "image/x-eoc"


def test_desktops_know_the_type_by_name_and_content(files: dict[str, Path], tmp_path: Path) -> None:
    space = "{http://www.freedesktop.org/standards/shared-mime-info}"
    (kind,) = ElementTree.parse(DESKTOP / "eocodec.xml").getroot()
    assert kind.get("type") == "image/x-eoc"
    glob, match = kind.find(f"{space}glob"), kind.find(f"{space}magic/{space}match")
    assert glob is not None and glob.get("pattern") == "*.eoc"
    assert match is not None and match.get("offset") == "0"
    assert str(match.get("value")).encode().decode("unicode_escape").encode() == MAGIC + bytes([VERSION])
    update = tool("update-mime-database")
    packages = tmp_path / "mime" / "packages"
    packages.mkdir(parents=True)
    shutil.copy(DESKTOP / "eocodec.xml", packages)
    done = subprocess.run([update, str(tmp_path / "mime")], capture_output=True, text=True)
    assert done.returncode == 0 and "rror" not in done.stderr, done.stderr
    assert (tmp_path / "mime" / "globs2").read_text().splitlines()[-1] == "50:image/x-eoc:*.eoc"
    assert b"[60:image/x-eoc]\n>0=\0\x04EOC\x01\n" in (tmp_path / "mime" / "magic").read_bytes()


@pytest.fixture
def command(tmp_path: Path) -> dict[str, str]:
    """An environment in which `eocodec` is this checkout's command, as it is where it was installed."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "eocodec").write_text(f'#!/bin/sh\nexec {sys.executable} -m eocodec_cli "$@"\n')
    (folder / "eocodec").chmod(0o755)
    return {**environment(), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}


@pytest.mark.slow
def test_bash_completes_commands_options_and_files(command: dict[str, str], tmp_path: Path) -> None:
    bash = tool("bash")
    script = """
source <(eocodec completion bash)
complete -p eocodec
ask() {
    COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=(); fallback=
    _eocodec_completion eocodec
    echo "${COMPREPLY[*]}$fallback"
}
compopt() { fallback="compopt $1 $2"; }
ask eocodec ''
ask eocodec de
ask eocodec compress --pro
ask eocodec compress --device c
ask eocodec compress pho
"""
    done = subprocess.run([bash, "--norc", "-c", script], capture_output=True, text=True, env=command, cwd=tmp_path)
    assert done.stderr == ""
    registered, everything, some, option, choice, path = done.stdout.splitlines()
    assert registered.endswith("-F _eocodec_completion eocodec")
    assert everything.split() == sorted(COMMANDS)
    assert some.split() == sorted(name for name in COMMANDS if name.startswith("de"))
    assert option == "--progressive" and choice == "cuda cpu"
    assert path == "compopt -o default"


def test_fish_completes_commands_and_files(command: dict[str, str], tmp_path: Path) -> None:
    fish = tool("fish")
    (tmp_path / "photo.png").touch()
    script = "eocodec completion fish | source; for l in 'eocodec de' 'eocodec compress ph'; complete -C $l; end"
    done = subprocess.run([fish, "-c", script], capture_output=True, text=True, env=command, cwd=tmp_path)
    offered = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert offered == ["decompress", "demo", "denoise", "photo.png"], done.stderr


@pytest.mark.slow
def test_zsh_takes_the_script(command: dict[str, str], tmp_path: Path) -> None:
    zsh = tool("zsh")
    script = "autoload -U compinit; compinit -u; source <(eocodec completion zsh); echo $_comps[eocodec]"
    done = subprocess.run([zsh, "-f", "-c", script], capture_output=True, text=True, env=command, cwd=tmp_path)
    assert done.stdout.strip() == "_eocodec_completion" and done.stderr == ""


@pytest.mark.parametrize("shell", sorted(FILES))
def test_scripts_fall_back_to_files(call: Runner, shell: str) -> None:
    done = call("completion", shell)
    assert done.returncode == 0 and FILES[shell][1] in done.stdout.decode()
