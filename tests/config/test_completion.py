"""Completion of commands, options and choices in a shell."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from slg_wds.cli import COMMANDS, SHELLS, main

# Completes the last of the words given, as bash does when the user presses the tab key after it.
COMPLETE = """
source /dev/stdin
complete=$(complete -p slg-wds) && complete=${complete#*-F } && complete=${complete%% *}
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
$complete slg-wds "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script() -> str:
    arguments = [sys.executable, "-m", "slg_wds", "--print-completion", "bash"]
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "among"),
    [
        (["gen"], {"generate"}),
        (["tr"], {"train"}),
        (["generate", "--num"], {"--num-crops", "--num-seg"}),
        (["generate", "images", "--precision", ""], {"fp32", "tf32", "bf16", "fp16"}),
        (["generate", "images", "--values", "l"], {"log8"}),
        (["export", "--layout", "m"], {"mealv2"}),
        (["inspect", "--store"], {"--store-option"}),
    ],
)
def test_bash_completes_commands_options_and_choices(script, words, among):
    found = completed(script, words)
    assert among <= found
    assert all(word.startswith(words[-1]) for word in found)


def completed(script: str, words: list[str]) -> set[str]:
    command = ["bash", "-c", COMPLETE, "bash", "slg-wds", *words]
    done = subprocess.run(command, input=script, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_no_choice_is_the_none_of_python(script):
    found = completed(script, ["generate", "images", "--values", ""])
    assert "log8" in found and "None" not in found


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_a_script_that_names_all_commands(shell, capsys):
    from importlib.metadata import version

    if shell == "fish" and version("tyro").startswith("0."):
        assert main(["--print-completion", shell]) == 2
        assert "upgrade tyro" in capsys.readouterr().err
        return
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", shell])
    assert not ended.value.code
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("shells", [[], ["csh"], ["bash", "zsh"]])
def test_other_shells_are_refused_in_words(shells, capsys):
    assert main(["--print-completion", *shells]) == 2
    assert capsys.readouterr().err == "slg-wds: --print-completion takes one of bash, zsh, fish\n"
