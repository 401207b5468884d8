"""The page in a real headless Chromium: offline, silent, its filters at work, readable in both themes."""

import json
import re
import shutil
from importlib.resources import files

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from unspoiled.report import ComparedRun, render_runs

INSTALL = "apt-get update && apt-get install -y chromium chromium-driver"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.fail(f"the report is tested in a browser, and there is none; run: {INSTALL}")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    chrome.get("about:blank")  # so that its own start page doesn't go on loading while ours does
    yield chrome
    chrome.quit()


@pytest.fixture
def page(browser, rendered, tmp_path):
    """Open a report of the given inputs, or a page as it is, from a file, at a width and in a theme."""

    def open_page(inputs, width=1200, theme="light", script=True):
        path = tmp_path / "report.html"
        text = inputs if isinstance(inputs, str) else rendered(inputs)
        path.write_text(text if script else re.sub("<script>.*</script>", "", text, flags=re.DOTALL), encoding="utf-8")
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.execute_cdp_cmd("Network.enable", {})
        media = [
            {"name": "prefers-color-scheme", "value": theme},
            {"name": "prefers-reduced-motion", "value": "reduce"},  # clicks wait for no scrolling
        ]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": media})
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(path.as_uri())
        return path.as_uri()

    return open_page


@pytest.fixture(scope="session")
def runs_page(results):
    config = {"bunch": {"experts": {"aligned": {}, "colours": {}, "letters": {}}}, "search": {"seed": 0}}
    other = results.model_copy(update={"provenance": {**results.provenance, "winner": "gradient", "guard": "other"}})
    return render_runs([ComparedRun("first", results, config), ComparedRun("second", other, {})])


def network_events(browser):
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [(e["method"].split(".")[1], e["params"]) for e in events if e["method"].startswith("Network.")]


def visible_text(browser):
    browser.execute_script("document.querySelectorAll('details').forEach(e => e.open = true)")
    return browser.find_element(By.TAG_NAME, "body").text


@pytest.mark.parametrize("which", ["inputs", "hostile_inputs"])
def test_the_page_is_silent_and_asks_for_nothing(browser, page, request, which):
    address = page(request.getfixturevalue(which))
    visible_text(browser)
    assert browser.get_log("browser") == []
    requests = [e["request"]["url"] for name, e in network_events(browser) if name == "requestWillBeSent"]
    assert [url for url in requests if not url.startswith("data:")] == [address]


def test_hostile_text_is_shown_and_does_nothing(browser, page, hostile_inputs):
    page(hostile_inputs)
    text = visible_text(browser)
    assert browser.execute_script("return typeof window.hacked") == "undefined"
    for tag in ("img", "iframe", "object", "base"):
        assert browser.find_elements(By.TAG_NAME, tag) == []
    assert len(browser.find_elements(By.TAG_NAME, "script")) == 1
    assert len(browser.find_elements(By.TAG_NAME, "form")) == 1
    assert browser.execute_script("return document.querySelectorAll('style').length") == 1
    assert "<script>window.hacked = 1</script><img src=x onerror=" in text
    assert "</style></svg></title>{{ 7 * 7 }}" in text
    for shown in ("⟨U+202E⟩txt.exe⟨U+202C⟩", "⟨U+001B⟩[31m", "⟨U+0000⟩", "⟨U+D800⟩"):
        assert shown in text
    assert not any(char in text for char in "\u202e\u202c\x1b\x00")
    attributes = browser.execute_script(
        "return [...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())"
    )
    assert not [name for name in attributes if name.startswith("on") or name == "style"]


INTRUSION = """
const add = (name, set) => { const e = document.createElement(name); set(e); document.body.append(e); };
add('div', e => e.innerHTML = '<img src="http://evil.invalid/x.png" onerror="window.hacked = 1">');
add('style', e => e.textContent = 'h1 { display: none }');
add('script', e => e.textContent = 'window.hacked = 1');
"""


def test_a_script_that_got_in_would_not_run(browser, page, inputs):
    """The policy, tested by breaking the page: inline script, handler, style and image are all refused."""
    page(inputs)
    browser.execute_script(INTRUSION)
    assert browser.execute_script("return typeof window.hacked") == "undefined"
    assert browser.find_element(By.TAG_NAME, "h1").is_displayed()
    events = network_events(browser)
    asked = [e["requestId"] for name, e in events if name == "requestWillBeSent" and "evil" in e["request"]["url"]]
    blocked = [e["requestId"] for name, e in events if e.get("blockedReason") == "csp"]
    assert asked == blocked
    refusals = [entry["message"] for entry in browser.get_log("browser")]
    assert sum("Content Security Policy" in message for message in refusals) >= 3


def test_text_not_judged_harmless_waits_behind_a_click(browser, page, inputs):
    page(inputs)
    row = browser.find_element(By.CSS_SELECTOR, "details.response")
    prompt = row.find_element(By.CSS_SELECTOR, ".prompt")
    assert not prompt.is_displayed()
    row.find_element(By.TAG_NAME, "summary").click()
    assert prompt.is_displayed()
    words = [verdict.text for verdict in row.find_elements(By.CSS_SELECTOR, ".answers .v")]
    texts = row.find_elements(By.CSS_SELECTOR, ".answers .written")
    assert len(texts) == len(words) == len(inputs.results.models)
    assert {"refused", "not refused, judged unsafe"} <= set(words)
    assert [text.is_displayed() for text in texts] == [word == "refused" for word in words]
    row.find_element(By.CSS_SELECTOR, "details.sensitive summary").click()
    assert texts[next(i for i, word in enumerate(words) if word != "refused")].is_displayed()


def shown_rows(browser):
    """Wait until the count is of the rows that are shown, and return their keys."""

    def settled(chrome):
        rows = chrome.execute_script(
            "return [...document.querySelectorAll('details.response:not([hidden])')].map(e => e.dataset.key)"
        )
        status = chrome.find_element(By.ID, "shown").text
        return (rows,) if status.startswith(f"{len(rows)} of ") else None

    return WebDriverWait(browser, 5).until(settled)[0]


def filtered(browser, expected):
    WebDriverWait(browser, 5).until(lambda chrome: len(shown_rows(chrome)) == expected)
    return shown_rows(browser)


def test_filters_show_what_they_say(browser, page, inputs):
    page(inputs)
    form = browser.find_element(By.ID, "filters")
    assert form.is_displayed()
    rows = inputs.responses
    assert len(filtered(browser, len(rows))) == len(rows)
    Select(form.find_element(By.NAME, "set")).select_by_visible_text("unsafe")
    unsafe = [row for row in rows if row.set == "unsafe"]
    filtered(browser, len(unsafe))
    Select(form.find_element(By.NAME, "verdict")).select_by_visible_text("refused")
    filtered(browser, sum("refused" in {v for _, v in row.answers.values()} for row in unsafe))
    Select(form.find_element(By.NAME, "model")).select_by_visible_text("base")
    by_base = sum(row.answers["base"][1] == "refused" for row in unsafe)
    assert 0 < by_base < len(unsafe)
    filtered(browser, by_base)
    form.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
    filtered(browser, len(rows))
    box = form.find_element(By.NAME, "differ")
    box.send_keys(Keys.SPACE)
    filtered(browser, sum(len({v for _, v in row.answers.values()}) > 1 for row in rows))


def test_words_are_searched_in_prompts_and_hidden_answers(browser, page, inputs):
    page(inputs)
    box = browser.find_element(By.NAME, "text")
    box.send_keys("NUMBER 27, thing nobody")
    assert len(filtered(browser, 1)) == 1
    box.clear()
    box.send_keys("no such words anywhere")
    filtered(browser, 0)
    assert browser.find_element(By.ID, "none").is_displayed()
    assert browser.find_element(By.ID, "shown").get_attribute("aria-live") == "polite"


def test_rows_open_by_keyboard(browser, page, inputs):
    page(inputs)
    summary = browser.find_element(By.CSS_SELECTOR, "details.response > summary")
    summary.send_keys(Keys.ENTER)
    assert browser.find_element(By.CSS_SELECTOR, "details.response .prompt").is_displayed()
    outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_the_skip_link_comes_first_and_leads_to_the_main_part(browser, page, inputs):
    page(inputs)
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    focused = browser.switch_to.active_element
    assert focused.text == "Skip to the results"
    focused.send_keys(Keys.ENTER)
    assert browser.execute_script("return document.activeElement.id") == "main"


def test_without_script_every_row_is_there_and_no_dead_filter(browser, page, inputs):
    page(inputs, script=False)
    assert not browser.find_element(By.ID, "filters").is_displayed()
    rows = browser.find_elements(By.CSS_SELECTOR, "details.response")
    assert len(rows) == len(inputs.responses)
    assert rows[0].is_displayed()
    assert rows[-1].is_displayed()


AXE = """
const done = arguments[arguments.length - 1];
axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'], resultTypes: ['violations']})
  .then(found => done(found.violations.map(v => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 200)])))
  .catch(error => done([String(error)]));
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("script", [True, False])
def test_axe_finds_no_violation(browser, page, inputs, theme, script):
    """WCAG 2.1 A and AA, landmarks and headings, with everything opened but most of the hundreds of responses."""
    page(inputs, theme=theme, script=script)
    assert axe_violations(browser) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_violation_in_several_runs(browser, page, runs_page, theme):
    page(runs_page, theme=theme)
    assert axe_violations(browser) == []


def test_a_violation_would_be_found(browser, page, inputs):
    page(inputs)
    browser.execute_script("document.querySelector('main').remove(); document.querySelector('h1').style.color = '#eee'")
    assert {name for name, *_ in axe_violations(browser)} >= {"landmark-one-main", "skip-link"}


def axe_violations(browser):
    browser.execute_script(
        "document.querySelectorAll('details.response').forEach((e, i) => { if (i >= 6) e.remove(); });"
        "document.querySelectorAll('details').forEach(e => e.open = true);"
    )
    browser.execute_script(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    browser.set_script_timeout(120)
    return browser.execute_async_script(AXE)


def test_several_runs_are_silent_and_ask_for_nothing(browser, page, runs_page):
    address = page(runs_page)
    assert browser.get_log("browser") == []
    requests = [e["request"]["url"] for name, e in network_events(browser) if name == "requestWillBeSent"]
    assert [url for url in requests if not url.startswith("data:")] == [address]


@pytest.mark.parametrize("width", [375, 1200])
def test_the_page_never_scrolls_sideways(browser, page, inputs, width):
    page(inputs, width=width)
    visible_text(browser)
    wide, window = browser.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= window


CONTRASTS = r"""
const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
const luminance = colour => {
  const [r, g, b] = colour.match(/[\d.]+/g).map(v => linear(v / 255));
  return .2126 * r + .7152 * g + .0722 * b;
};
const backdrop = e => {
  while (e.parentElement && getComputedStyle(e).backgroundColor == 'rgba(0, 0, 0, 0)') e = e.parentElement;
  return luminance(getComputedStyle(e).backgroundColor);
};
const writes = e => [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim());
return [...document.querySelectorAll('body *:not(title, desc)')].filter(writes).map(e => {
  const style = getComputedStyle(e);
  const [a, b] = [luminance(e.closest('svg') ? style.fill : style.color), backdrop(e)];
  return [e.outerHTML.slice(0, 120), (Math.max(a, b) + .05) / (Math.min(a, b) + .05)];
});
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_has_enough_contrast(browser, page, inputs, theme):
    """WCAG 2.2, 1.4.3: at least 4.5 to 1, in the figures too."""
    page(inputs, theme=theme)
    visible_text(browser)
    background = browser.execute_script("return getComputedStyle(document.documentElement).backgroundColor")
    assert background == {"light": "rgb(253, 252, 248)", "dark": "rgb(23, 22, 21)"}[theme]
    measured = browser.execute_script(CONTRASTS)
    assert len(measured) > 300
    assert [entry for entry in measured if entry[1] < 4.5] == []


def test_figures_and_regions_have_names(browser, page, inputs):
    page(inputs)
    figures = browser.find_elements(By.CSS_SELECTOR, "svg")
    assert len(figures) == 2 + 2 + 2 + 1 + 6 + 1 + 1 + 3  # trade-offs, two per audited merge, norms, rates, ...
    for figure in figures:
        assert figure.aria_role in ("img", "image")
        assert figure.accessible_name
        described = figure.get_attribute("aria-describedby")
        assert browser.execute_script("return document.getElementById(arguments[0]).textContent.length", described) > 20
    ids = browser.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    for landmark in ("header", "nav", "main", "footer"):
        assert len(browser.find_elements(By.CSS_SELECTOR, f"body > {landmark}")) == 1
    tables = "return [...document.querySelectorAll('table')].map(e => e.querySelectorAll('th[scope=col]').length)"
    assert min(browser.execute_script(tables)) > 0


def test_print_is_light_and_cuts_nothing_off(browser, page, inputs):
    page(inputs, width=760, theme="dark")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    wide, window, paper = browser.execute_script(
        "const e = document.documentElement;"
        "const ends = [...document.querySelectorAll('svg, table')].map(e => e.getBoundingClientRect().right);"
        "return [Math.max(...ends), e.clientWidth, getComputedStyle(e).backgroundColor]"
    )
    assert wide <= window
    assert paper == "rgb(255, 255, 255)"
