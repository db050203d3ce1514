"""Where a command can't write is told before it works, and nothing is left half done."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobs.cli import main
from tests.pipeline.tiny import texture

ROOT = Path(__file__).parents[3]
TAKES_A_FILE = (
    ["audit"],
    ["evaluate", "-p", "bottle"],
    ["rescore", "-p", "bottle", "-v", "20260131T120000Z-0f1e2d3c", "--since", "1h", "--to", "x.y"],
    ["demo"],
    ["chaos"],
    ["plan"],
    ["bench", "stream"],
    ["benchmark", "photos"],
)
TAKES_A_FOLDER = (
    ["score", "a.png", "-p", "bottle", "--mask"],
    ["replay", "--event", "5b48d642c7f2abcbd25666e8bfb6af7e", "--out"],
    ["demo", "--out"],
    ["chaos", "--folder"],
    ["benchmark", "photos", "--out"],
    ["schemas"],
)


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, result.output
    [line] = result.output.splitlines()
    return line


@pytest.mark.parametrize("arguments", TAKES_A_FILE, ids=lambda words: words[0])
def test_a_file_that_cannot_be_written_is_told_before_the_work(arguments: list[str]) -> None:
    assert refused(*arguments, "--json", "gone/x.json").startswith(
        "Error: --json gone/x.json: there is no folder gone: make it first"
    )
    assert "is a folder, not a file" in refused(*arguments, "--json", ".")
    assert "/proc can't be written to" in refused(*arguments, "--json", "/proc/x.json")


@pytest.mark.parametrize("arguments", TAKES_A_FOLDER, ids=lambda words: words[0])
def test_a_folder_that_cannot_be_made_is_told_before_the_work(arguments: list[str]) -> None:
    Path("file").touch()
    assert "file is a file, not a folder" in refused(*arguments, "file/masks")
    assert "/proc can't be written to" in refused(*arguments, "/proc/masks/of")
    assert {path.name for path in Path().iterdir()} == {"file"}


def test_masks_of_equal_names_are_refused_before_one_is_written() -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "x.png").write_bytes(texture(1))
    result = CliRunner().invoke(main, ["score", "a/x.png", "b/x.png", "-p", "bottle", "--mask", "masks"])
    assert result.exit_code == 1
    assert (
        result.output
        == "Error: a/x.png and b/x.png would both write masks/x_mask.png: score them one folder at a time\n"
    )
    assert not Path("masks").exists()
    Path("a/x_mask.png").write_bytes(texture(2))
    result = CliRunner().invoke(main, ["score", "a/x.png", "a/x_mask.png", "-p", "bottle", "--mask", "a"])
    assert "the mask of a/x.png would be written over the image a/x_mask.png" in result.output
    assert Path("a/x_mask.png").read_bytes() == texture(2)


def printed(code: str, encoding: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=True, env={"PYTHONIOENCODING": encoding}
    )
    return done.stdout.decode(encoding.partition(":")[0])


def test_a_terminal_that_is_not_utf8_gets_plain_letters() -> None:
    code = (
        "from jobs.session.terminal import take_any_text\ntake_any_text()\n"
        "print('\\u2713 a \\u2013 b \\xb7 \\u2026 caf\\xe9 \\U0001f600 \\udcff')"
    )
    assert printed(code, "ascii:strict") == "+ a - b | ... caf\\u00e9 \\ud83d\\ude00 \\udcff\n"
    assert printed(code, "latin-1:strict") == "+ a - b · ... café \\ud83d\\ude00 \\udcff\n"
    assert printed(code, "utf-8:strict") == "✓ a – b · … café 😀 \\udcff\n", "a file's name may be no text at all"


def test_the_screen_of_a_command_is_written_on_such_a_terminal() -> None:
    code = (
        "import click\nfrom jobs.cli import main\n"
        "@main.command('steps')\n"
        "def steps():\n"
        "    from jobs.session.progress import Screen\n"
        "    with Screen().step('Reading'): pass\n"
        "main(['steps'])"
    )
    assert printed(code, "ascii:strict").strip().startswith("+ Reading 0.")
