"""Take the pictures of a run's report that the docs show: `python screenshots.py RUN docs/images`.

Needs Chromium and its driver (`apt-get install chromium chromium-driver`) and selenium.
"""

from __future__ import annotations

import argparse
import base64
import shutil
import sys
import tempfile
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

WIDTH = 1180
LARGEST = 500_000
"""Bytes of a picture that a repository should still hold."""
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-sync")
OPEN_A_ROW = """
document.querySelector('#responses [name=set]').value = '0';
document.getElementById('filters').elements.differ.checked = true;
document.getElementById('filters').dispatchEvent(new Event('input'));
"""
OPEN_THE_FIRST = "document.querySelector('details.response:not([hidden])').open = true"
HIDE_PROMPTS = """
for (const prompt of document.querySelectorAll('#responses .prompt'))
  prompt.textContent = '(a test prompt, which a picture in the docs does not repeat)';
"""


def main() -> None:
    """Take every picture that the report has something for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="A run directory, or its report.html.")
    parser.add_argument("out", type=Path, help="Where the PNGs go.")
    given = parser.parse_args()
    page = given.run / "report.html" if given.run.is_dir() else given.run
    if not page.is_file():
        sys.exit(f"{page} does not exist: make it with `unspoiled report CONFIG`.")
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        chrome = open_chromium(profile)
        try:
            for path in take(chrome, page.resolve(), given.out):
                print(path)
        finally:
            chrome.quit()


def open_chromium(profile: str) -> webdriver.Chrome:
    """Return a headless Chromium, or end with what to install."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not found or not driver:
        sys.exit("no Chromium or no chromedriver here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = found
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=Service(driver))


def take(chrome: webdriver.Chrome, page: Path, out: Path) -> list[Path]:
    """Write the pictures: the top of the page in both themes, the audit, and the responses browser without prompts."""
    written = []
    for name, theme, section, height in (
        ("report-light", "light", None, 1560),
        ("report-dark", "dark", None, 1560),
        ("audit", "light", "audit", 1500),
        ("browser", "light", "responses", 900),
    ):
        media = [{"name": "prefers-color-scheme", "value": theme}]
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": media})
        metrics = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        chrome.get(page.as_uri())
        if section == "responses":
            chrome.execute_script(OPEN_A_ROW)
            chrome.execute_async_script("setTimeout(arguments[0], 400)")
            chrome.execute_script(OPEN_THE_FIRST)
            chrome.execute_script(HIDE_PROMPTS)
        clip = clipped(chrome, section, height)
        if clip is not None:
            shot = {"format": "png", "clip": clip, "captureBeyondViewport": True}
            content = base64.b64decode(chrome.execute_cdp_cmd("Page.captureScreenshot", shot)["data"])
            path = out / f"{name}.png"
            path.write_bytes(content)
            if len(content) > LARGEST:
                print(f"{path}: {len(content)} bytes, more than {LARGEST}", file=sys.stderr)
            written.append(path)
    return written


def clipped(chrome: webdriver.Chrome, section: str | None, height: int) -> dict[str, float] | None:
    """Return the part of the page to take: its top, or a section; None if the page lacks the section."""
    script = """const e = document.getElementById(arguments[0]);
    if (!e) return null; const r = e.getBoundingClientRect(); return [r.top + scrollY, r.height];"""
    at = [0, height] if section is None else chrome.execute_script(script, section)
    if at is None:
        return None
    top, size = at
    return {"x": 0, "y": max(0, top - 24), "width": WIDTH, "height": min(size + 48, height), "scale": 1}


if __name__ == "__main__":
    main()
