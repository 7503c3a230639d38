"""All output is escaped and masked in one place."""

from __future__ import annotations

import ast
import io
import json
import pickle
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import slg_wds
from slg_wds import console, errors
from slg_wds.config import InspectConfig
from slg_wds.masking import masked
from slg_wds.store import open_store
from support.notebook import run_cell

SECRET = "s3cr3t/Value+1="
HIDDEN = {
    f"http://key:{SECRET}@host:9000/a": "http://***@host:9000/a",
    "s3://key:p@ss@bucket/a": "s3://***@bucket/a",
    f"GET https://h/p?X-Amz-Signature={SECRET}&a=b in 3 ms": "GET https://h/p?*** in 3 ms",
    f"https://h/p?{SECRET}": "https://h/p?***",
    f"https://h/p#{SECRET}": "https://h/p#***",
    f"az://c/p?sv=1&sig={SECRET}": "az://c/p?***",
    f"--store-option secret_access_key={SECRET} region=x": "--store-option secret_access_key=*** region=x",
    f"AWS_SESSION_TOKEN={SECRET}": "AWS_SESSION_TOKEN=***",
    f"{{'account_key': '{SECRET}', 'a': 'b'}}": "{'account_key': '***', 'a': 'b'}",
    f"('sas_token={SECRET}', 'a=b')": "('sas_token=***', 'a=b')",
    f'service_account_key={{"private_key": "{SECRET} x"}}': "service_account_key=***",
}
KEPT = [
    "s3://bucket/user@home/x?", "http://host:9000/a@b", "no credentials: HTTP status 403", "monkey=1.jpg",
    "skip_signature=true", "/data/a?b=c", "token: one", "s3://bucket/train-????.tar", "timm:a,pytorch:b@c",
]  # fmt: skip


@pytest.mark.parametrize("text, wanted", HIDDEN.items())
def test_secrets_are_masked(text, wanted):
    assert masked(text) == wanted and masked(wanted) == wanted


@pytest.mark.parametrize("text", KEPT)
def test_what_is_no_secret_stays(text):
    assert masked(text) == text


def test_values_are_masked_by_their_names():
    value = {"token": SECRET, "a": [f"http://u:{SECRET}@h/x", ("b", 1)], "sig": 5, "sas_key": ""}
    assert masked(value) == {"token": "***", "a": ["http://***@h/x", ("b", 1)], "sig": 5, "sas_key": ""}


@given(st.text())
def test_masking_twice_changes_nothing_more(text):
    for one in (text, f"https://a:{text}@b/{text}?{text}", f"token={text}"):
        assert masked(masked(one)) == masked(one)


def test_errors_hold_no_secret():
    url = f"https://user:{SECRET}@host/x?sig={SECRET}"
    error = errors.StoreError(f"GET {url}", url=url, hint=f"token={SECRET}").located(key=url)
    error.url = url
    again = pickle.loads(pickle.dumps(error))
    for one in (error, again):
        assert SECRET not in f"{one} {one!r} {one.args} {vars(one)}"
        assert one.url == "https://***@host/x?***"


def test_stores_sets_and_options_do_not_show_secrets():
    options = InspectConfig(labels=f"http://u:{SECRET}@h/x", store_options={"secret_access_key": SECRET})
    assert SECRET not in repr(options) and options.store_options == {"secret_access_key": SECRET}
    assert (
        repr(options) == "InspectConfig(labels='http://***@h/x', store_options={'secret_access_key': '***'})"
    )
    generated = slg_wds.GenerateConfig(save_path="out", num_crops=2, arch="m", data="images", seed=0)
    assert repr(generated) == "GenerateConfig(data='images', arch='m', save_path='out', num_crops=2)"
    assert "w0rd" not in repr(open_store("http://u:w0rd@h/x"))


@given(st.text())
def test_a_line_stays_a_line_and_can_be_printed(text):
    shown = console.shown(text)
    assert shown.isprintable() and len(shown.splitlines()) <= 1


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_is_printable_and_means_the_same(value):
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        console.tell_json(value)
    assert all(line.isprintable() for line in stream.getvalue().splitlines())
    assert json.loads(stream.getvalue()) == masked(value)


def test_tables_escape_their_cells(capsys):
    console.tell_table("a\x1b[2J", ("x\n", "y"), [("[red]b[/red]\x9b1m", "c\nd")])
    printed = capsys.readouterr().out
    assert "a\\x1b[2J" in printed and "x\\n" in printed and "[red]b[/red]\\x9b1m" in printed
    assert "c\\nd" in printed


def test_crashes_are_printed_without_secrets(capsys, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    console.prepare()
    try:
        raise RuntimeError(f"http://u:{SECRET}@h\x1b[1m")
    except RuntimeError as error:
        sys.excepthook(RuntimeError, error, error.__traceback__)
    said = capsys.readouterr().err
    assert said.splitlines()[-1] == "RuntimeError: http://***@h\\x1b[1m" and said.startswith("Traceback")


def test_nobody_else_prints():
    package = Path(slg_wds.__file__).parent
    for path in package.rglob("*.py"):
        calls = [one for one in ast.walk(ast.parse(path.read_text())) if isinstance(one, ast.Call)]
        used = {ast.unparse(call.func) for call in calls}
        forbidden = {"print", "sys.stdout.write", "sys.stderr.write", "traceback.print_exc", "warnings.warn"}
        assert not used & forbidden or path.name == "console.py", (path, used & forbidden)


def test_lists_of_names_in_messages_are_short():
    assert console.first_few([]) == ""
    assert console.first_few(["a", "b"]) == "a, b"
    assert console.first_few([*"abcdef"]) == "a, b, c, d, e, ..."
    assert len(console.first_few(["x" * 5000] * 1000)) < 600


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.04, "0 s"),
        (0.38, "0.4 s"),
        (0.96, "1 s"),
        (48.2, "48 s"),
        (90.0, "2 min"),
        (5400.0, "1.5 h"),
        (130_000.0, "1.5 days"),
    ],
)
def test_durations_have_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text


def test_tables_end_without_blanks_and_break_no_number(capsys, monkeypatch):
    from rich.console import Console, ConsoleDimensions

    monkeypatch.setattr(Console, "size", property(lambda self: ConsoleDimensions(44, 20)))
    monkeypatch.setenv("TERM", "dumb")  # no escape codes on the terminal
    rows = [("11.25", "6.000", "a long text of many words " * 4)] * 2
    for terminal in (False, True):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        console.tell_table(
            "a title that is longer than the table is, and stays one line",
            ("bytes", "of crops", "words"),
            rows,
        )
        printed = capsys.readouterr().out
        assert printed.splitlines()[0].endswith("stays one line")
        assert all(line == line.rstrip() for line in printed.splitlines())
        assert printed.count("11.25") == printed.count("6.000") == 2 and "bytes" in printed


@pytest.mark.parametrize("width", [30, 40, 60, 200])
@pytest.mark.parametrize("head", [True, False])
def test_tables_of_narrow_terminals_break_no_word_and_are_not_wider(capsys, monkeypatch, width, head):
    from rich.console import Console, ConsoleDimensions

    monkeypatch.setattr(Console, "size", property(lambda self: ConsoleDimensions(width, 20)))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    columns = ("crop", "top, left, height, width", "classes", "tail mass")
    rows = [
        ("0", "122, 104, 175, 233", "0.366 Egyptian cat; 0.315 hippopotamus; 0.007 Persian cat", "0.187")
    ] * 2
    if not head:
        rows = [row[1:3] for row in rows]
    console.tell_table("a title", columns if head else (), rows)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    for word in {*" ".join(rows[0]).split(), *(" ".join(columns).split() if head else ())}:
        assert word in printed.split(), word


def test_a_table_in_a_notebook_is_text_alone():
    """In a real kernel: rich would add an empty block of HTML to each table."""
    messages = run_cell(
        "from slg_wds.console import tell_table; tell_table('a title', ('name',), [('value',)])"
    )
    shown = [one for one in messages if one["msg_type"] not in ("status", "execute_input")]
    assert [one["msg_type"] for one in shown] == ["stream"]
    assert "a title" in shown[0]["content"]["text"] and "value" in shown[0]["content"]["text"]
