"""The report in a real browser: no console messages, no network, gallery, search, keyboard, hostile names."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slg_wds.config import ReportConfig
from slg_wds.report.command import report
from support.headless import Page, browser, running_page
from support.sets.reported_sets import CLASSES, HOSTILE, label_set

pytestmark = pytest.mark.skipif(
    browser() is None, reason="no chromium is installed (apt-get install chromium)"
)

CARDS = "[...document.querySelectorAll('.card .path')].map(e => e.textContent)"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with running_page(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two teachers' sets of 40 images."""
    folder = tmp_path_factory.mktemp("two")
    sets = tuple(label_set(folder / f"teacher{t}", t, images=40, embedded=t == 1).url for t in (1, 2))
    report(ReportConfig(labels=sets, output=str(folder / "two.html")))
    return folder / "two.html"


@pytest.fixture
def opened(tab: Page, two: Path) -> Iterator[Page]:
    tab.complaints.clear()
    tab.requests.clear()
    tab.open(two)
    tab.js("localStorage.clear()")
    yield tab
    assert tab.complaints == []
    assert set(tab.requests) == {two.resolve().as_uri()}


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_any_width_in_both_themes(opened, two, width, dark):
    opened.open(two, width, 900, dark)
    assert opened.js("document.documentElement.scrollWidth") == width
    assert two.stat().st_size < 5_000_000
    ink, paper = opened.js("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
    assert contrast(ink, paper) > 10
    muted = "(e => getComputedStyle(e).color)(document.querySelector('figcaption'))"
    assert contrast(opened.js(muted), paper) > 4.5
    assert opened.js("document.querySelectorAll('figure svg[role=img][aria-label]').length") == 10


def contrast(first: str, second: str) -> float:
    """WCAG's contrast of two colours rgb(r, g, b)."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_search_by_key_and_by_class(opened):
    everything = len(json.loads(opened.js("document.getElementById('data').textContent"))["images"])
    assert len(opened.js(CARDS)) == 9 < everything
    opened.press("/", "/")
    assert opened.js("document.activeElement.id") == "search"
    opened.write("PICTURE_07")
    opened.until(f"{CARDS}.length === 1")
    assert opened.js(CARDS) == ["folder/picture_07"]
    opened.js("document.getElementById('search').select()")
    opened.write("thing 3,")
    opened.until(f"{CARDS}.length > 1")
    # All images of that class, and those taken for it, but no others.
    shown = json.loads(opened.js("document.getElementById('data').textContent"))["images"]
    wanted = [i["key"] for i in shown if 3 in (i["target"], i["answer"])]
    assert opened.js(CARDS) == wanted[:9] and {f"folder/picture_{n:02d}" for n in (3, 15, 27, 39)} <= set(
        wanted
    )
    opened.js("document.getElementById('search').select()")
    opened.write("nothing of the kind")
    opened.until("document.querySelector('.none') !== null")
    assert opened.js("document.getElementById('count').textContent") == "0 images of the gallery"


def test_filters_and_more(opened):
    opened.js("document.querySelector('[data-kind=disagree]').click()")
    images = json.loads(opened.js("document.getElementById('data').textContent"))["images"]
    wanted = [image["key"] for image in images if "disagree" in image["kinds"]]
    assert opened.js(CARDS) == wanted[:9]
    opened.js("document.getElementById('more').click()")
    assert opened.js(CARDS) == wanted[:18]
    assert opened.js("document.activeElement.closest('.card') === document.querySelectorAll('.card')[9]")
    assert opened.js("document.querySelector('[data-kind=disagree]').getAttribute('aria-pressed')") == "true"
    assert opened.js(
        "[...document.querySelectorAll('image')].every(i => i.getAttribute('href').startsWith('data:'))"
    )


def test_crops_by_keyboard_alone(opened):
    """Tab to a card's crops, walk them, and see boxes and bars follow."""
    opened.js("document.getElementById('search').focus()")
    for _ in range(20):
        opened.press("Tab")
        if opened.js("document.activeElement.getAttribute('role') === 'radio'"):
            break
    chosen = "[...document.activeElement.parentNode.children].indexOf(document.activeElement)"
    bars = "document.activeElement.closest('.card').querySelector('.bars').innerText"
    box = "(b => b.getAttribute('x') + ' ' + b.getAttribute('y'))(document.querySelector('.box.chosen'))"
    assert opened.js(chosen) == 7  # the surest
    seen = set()
    for at in (0, 1, 2, 1):
        opened.press(
            {0: "Home", 1: "ArrowRight", 2: "ArrowRight"}[at] if (at, len(seen)) != (1, 3) else "ArrowLeft"
        )
        assert opened.js(chosen) == at
        assert opened.js("document.activeElement.getAttribute('aria-checked')") == "true"
        image = json.loads(opened.js("document.getElementById('data').textContent"))["images"][0]
        x, y, _, _ = image["crops"][at]["b"]
        assert opened.js(box) == f"{x} {y}"
        seen.add(opened.js(bars))
    assert len(seen) == 3
    outline = "(s => s.outlineStyle + s.outlineWidth)(getComputedStyle(document.activeElement))"
    assert opened.js(outline) == "solid3px"
    first = image["crops"][1]["t"]
    said = opened.js(
        "[...document.activeElement.closest('.card').querySelectorAll('.bars .p')].map(e => e.textContent)"
    )
    assert said[0] == f"{100 * first[0]['p'][0]:.1f}%" and len(said) == 2 * 6


def test_theme_by_keyboard(opened):
    opened.js("document.querySelector('#theme input').focus()")
    opened.press("ArrowRight")
    opened.press("ArrowRight")
    assert opened.js("document.documentElement.dataset.theme") == "dark"
    dark = opened.js("getComputedStyle(document.body).backgroundColor")
    opened.press("ArrowLeft")
    assert opened.js("document.documentElement.dataset.theme") == "light"
    assert opened.js("getComputedStyle(document.body).backgroundColor") != dark


def test_class_table_sorts_and_leads_to_the_images(opened):
    column = (
        "[...document.querySelectorAll('#class-table tbody tr')].map(r => parseFloat(r.cells[3].textContent))"
    )
    rising = opened.js(column)
    assert rising == sorted(rising) and len(rising) == CLASSES
    opened.js("document.querySelectorAll('#class-table th button')[3].click()")
    assert opened.js(column) == rising[::-1] or opened.js(column) == sorted(rising, reverse=True)
    opened.js("document.querySelector('#class-table td button').click()")
    assert opened.js("document.getElementById('search').value").startswith("thing ")
    opened.js("document.querySelector('[data-search]').click()")
    assert opened.js("document.activeElement.id") == "search" and opened.js(CARDS)


def test_hostile_names_are_only_text(tab, tmp_path):
    names = [HOSTILE[n % len(HOSTILE)] + str(n) for n in range(CLASSES)]
    keys = [f"{name.replace('/', '∕')}{n}" for n, name in enumerate(HOSTILE * 2)]
    labels = label_set(tmp_path / "<b>{{7*7}}", keys=keys, names=names)
    tab.complaints.clear()
    tab.requests.clear()
    report(ReportConfig(labels=(labels.url,), output=str(tmp_path / "hostile.html")))
    tab.open(tmp_path / "hostile.html")
    assert sorted(
        tab.js(CARDS)
        + tab.js("[...document.querySelectorAll('#others td:first-child')].map(e => e.textContent)")
    )
    tab.js("document.getElementById('more').click()")
    assert sorted(tab.js(CARDS)) == sorted(keys)
    assert tab.js("document.querySelector('h1').textContent") == "<b>{{7*7}}"
    table = tab.js("[...document.querySelectorAll('#class-table td:first-child')].map(e => e.textContent)")
    assert sorted(table) == sorted(names)
    assert (
        tab.js("document.scripts.length") == 2 and tab.js("document.querySelectorAll('img, b b').length") == 0
    )
    assert tab.complaints == [] and len(set(tab.requests)) == 1


def test_the_security_policy_holds(opened):
    """The browser blocks injected scripts and requests on this page."""
    opened.js(
        "document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.1:9/x.png'}))"
    )
    opened.until("true")
    refused = "fetch('http://127.0.0.1:9/').then(() => 'went', () => 'refused')"
    assert opened.js(refused) == "refused"
    opened.js("document.body.append(Object.assign(document.createElement('p'), {id: 'p'}))")
    opened.js("document.getElementById('p').setAttribute('style', 'color: rgb(1, 2, 3)')")
    assert opened.js("getComputedStyle(document.getElementById('p')).color") != "rgb(1, 2, 3)"
    p = "document.getElementById('p')"
    for attempt in (f"{p}.innerHTML = '<b>x</b>'", f"{p}.setAttribute('onclick', 'window.went = 1')"):
        tried = f"(() => {{ try {{ {attempt}; return 'went' }} catch {{ return 'refused' }} }})()"
        assert opened.js(tried) == "refused"
    opened.js("new Promise(done => setTimeout(done, 100))")
    said = [complaint for complaint in opened.complaints if "Content Security Policy" in complaint]
    assert len(said) >= 3, opened.complaints
    opened.complaints.clear()
    opened.requests[:] = opened.requests[:1]


def test_the_command(tmp_path):
    labels = label_set(tmp_path / "set")
    command = [sys.executable, "-m", "slg_wds", "report", labels.url, "-o", str(tmp_path / "r.html")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "from 14 images of 3 shards" in done.stdout, done.stderr
    failed = subprocess.run([*command[:4], str(tmp_path), *command[5:]], capture_output=True, text=True)
    assert (
        failed.returncode == 1
        and failed.stderr.startswith("slg-wds report: ")
        and failed.stderr.count("\n") == 1
    )


def test_without_the_extra(tmp_path):
    code = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'jinja2' else real(name, *rest)\n"
        "from slg_wds.cli import main; sys.exit(main(['report', 'nowhere']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "pip install 'slg-wds[report]'" in done.stderr
