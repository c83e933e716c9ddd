"""The pages of `dvc plots` in a real browser without network: every spec and figure is drawn.

    python -m tests.browser.plots_pages FOLDER
    python -m tests.browser.check_plots FOLDER --screenshots SHOTS

Wants what check_page.py wants. Prints one line per check; exit code 1 where one fails.
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.check_page import WIDE, check, console, finish, launch, screenshot, until

SPECS, FIGURES = 4, ("figure1", "figure2", "figure3", "grid", "training")
DRAWN = 'document.querySelectorAll(".vega-embed canvas, .vega-embed svg").length'
LOADED = "images => images.filter(i => i.complete && i.naturalWidth > 300).length"


def check_revisions(page, revisions, count):
    """The page that compares `count` revisions: plots not empty, figures side by side."""
    drawn = until(lambda: page.evaluate(DRAWN) >= SPECS, 20)
    check(f"{revisions}: {SPECS} specs are compiled and drawn", drawn, page.evaluate(DRAWN))
    for i in range(SPECS):
        png = page.locator(".vega-embed").nth(i).screenshot()
        image = Image.open(io.BytesIO(png)).convert("RGB")
        colours = len(image.getcolors(2**24))
        filled = min(image.size) > 100 and colours > 30
        check(f"{revisions}: plot {i + 1} is not empty", filled, (image.size, colours))
    for figure in FIGURES:
        shown = page.locator(f'img[src*="{figure}"]').evaluate_all(LOADED)
        check(f"{revisions}: {figure} once a revision", shown == count, shown)


def main():
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--screenshots", type=Path)
    args = parser.parse_args()
    if args.screenshots:
        args.screenshots.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = launch(playwright, shutil.which("chromium"))
        for count, revisions in enumerate(("one", "two", "three"), 1):
            context = browser.new_context(viewport=WIDE, offline=True)
            page = context.new_page()
            texts = console(page)
            page.goto((args.folder / revisions / "index.html").resolve().as_uri())
            check_revisions(page, revisions, count)
            check(f"{revisions}: the console is silent", not texts, texts)
            screenshot(page, args.screenshots, f"plots-{revisions}")
            context.close()
        browser.close()
    finish(args.folder)


if __name__ == "__main__":
    main()
