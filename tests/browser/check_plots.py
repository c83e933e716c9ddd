"""The pages of `dvc plots` in a real browser without network: every spec drawn, figures side by side, a silent console.

    python -m tests.browser.plots_pages FOLDER && python -m tests.browser.check_plots FOLDER --screenshots SHOTS

Wants what check_page.py wants. Prints a line a check; exit code 1 where one fails.
"""

import argparse
import io
import os
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.check_page import FLAGS, check, failures, until

SPECS, FIGURES = 4, ("figure1", "figure2", "figure3", "grid", "training")
LINES = 'document.querySelectorAll(".vega-embed canvas, .vega-embed svg").length'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--screenshots", type=Path)
    asked = parser.parse_args()
    flags = FLAGS + ["--no-sandbox"] * (os.geteuid() == 0)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        for revisions, count in (("one", 1), ("two", 2), ("three", 3)):
            context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
            page, said = context.new_page(), []
            page.on("console", lambda message: message.type in ("error", "warning") and said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto((asked.folder / revisions / "index.html").resolve().as_uri())
            drawn = until(lambda: page.evaluate(LINES) >= SPECS, 20)
            check(f"{revisions}: {SPECS} specs are compiled and drawn", drawn, page.evaluate(LINES))
            for i in range(SPECS):
                image = Image.open(io.BytesIO(page.locator(".vega-embed").nth(i).screenshot())).convert("RGB")
                colours = len(image.getcolors(2**24))
                check(f"{revisions}: plot {i + 1} is not empty", min(image.size) > 100 and colours > 30, (image.size, colours))
            for figure in FIGURES:
                shown = page.evaluate("name => [...document.images].filter(i => i.src.includes(name) && i.complete && i.naturalWidth > 300).length"
                                      if page.locator(f'img[src*="{figure}"]').count() else "name => 0", figure)
                check(f"{revisions}: {figure} once a revision", shown == count, shown)
            check(f"{revisions}: the console is silent", not said, said)
            if asked.screenshots:
                asked.screenshots.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=asked.screenshots / f"plots-{revisions}.png", full_page=True)
            context.close()
        browser.close()
    print(f"{asked.folder}: {f'{len(failures)} checks fail' if failures else 'all checks hold'}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
