"""The page in a real headless Chromium: offline, silent, script-free, readable in both themes."""

import json
import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

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
    yield chrome
    chrome.quit()


@pytest.fixture
def page(browser, rendered, tmp_path):
    """Open a report of the given inputs, from a file, at a width and in a theme."""

    def open_page(inputs, width=1200, theme="light"):
        path = tmp_path / "report.html"
        path.write_text(rendered(inputs), encoding="utf-8")
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.execute_cdp_cmd("Network.enable", {})
        media = [{"name": "prefers-color-scheme", "value": theme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": media})
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(path.as_uri())
        return path.as_uri()

    return open_page


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
    for tag in ("script", "img", "iframe", "object", "form", "base"):
        assert browser.find_elements(By.TAG_NAME, tag) == []
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
    row.find_element(By.TAG_NAME, "summary").click()
    refused, complied, _ = row.find_elements(By.CSS_SELECTOR, ".answer .written")
    assert refused.is_displayed()
    assert not complied.is_displayed()
    row.find_element(By.CSS_SELECTOR, "details.sensitive summary").click()
    assert complied.is_displayed()


@pytest.mark.parametrize("width", [400, 1200])
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
    assert len(figures) == 5 + 2 + 1 + 3
    for figure in figures:
        assert figure.aria_role in ("img", "image")
        assert figure.accessible_name
        described = figure.get_attribute("aria-describedby")
        assert browser.execute_script("return document.getElementById(arguments[0]).textContent.length", described) > 20
    ids = browser.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    for landmark in ("header", "nav", "main", "footer"):
        assert len(browser.find_elements(By.CSS_SELECTOR, f"body > {landmark}")) == 1
    for table in browser.find_elements(By.TAG_NAME, "table"):
        assert table.find_elements(By.CSS_SELECTOR, "th[scope=col]")


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
