"""The report page in a real browser without network: what clicks and keys do, what is drawn, accessibility, small screens.

    python -m tests.browser.check_page reports/index.html --screenshots FOLDER

Wants Debian's `chromium` and tests/browser/requirements.txt. Prints a line a check; exit code 1 where one fails.
"""

import argparse
import base64
import contextlib
import io
import json
import os
import shutil
import sys
import time
from pathlib import Path

import axe_playwright_python
from PIL import Image, ImageChops
from playwright.sync_api import sync_playwright

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa"]
FLAGS = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
         "--host-resolver-rules=MAP * ~NOTFOUND"]
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 320, "height": 640}
failures = []


def check(what, holds, found=""):
    """Say what holds and what does not."""
    print(f"{'ok  ' if holds else 'FAIL'} {what}{'' if holds else f': {found}'}", flush=True)
    if not holds:
        failures.append(what)


@contextlib.contextmanager
def opened(browser, url, what, **options):
    """The page in a fresh context; afterwards its console must have been silent, and nothing asked for but the file."""
    context = browser.new_context(viewport=options.pop("viewport", WIDE), offline=True, **options)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: message.type in ("error", "warning") and said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("data:", "blob:")) or asked.append(request.url))
    page.goto(url)
    yield page
    check(f"{what}: the console is silent", not said, said)
    check(f"{what}: nothing is asked for but the file", asked == [url], asked)
    context.close()


def until(holds, seconds=5):
    """Wait for `holds()`; not by the browser's own means, which make code from text: the page's policy forbids that."""
    end = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def drawn(page):
    return until(lambda: page.locator("canvas:not([data-drawn])").count() == 0)


def axe(page, what):
    """No violation of level A or AA on the page as it stands."""
    check(f"{what}: all samples are drawn", drawn(page))
    page.evaluate(AXE)
    found = page.evaluate("levels => axe.run(document, {runOnly: levels, resultTypes: ['violations', 'incomplete']})", LEVELS)
    told = [f"{v['id']} ({v['impact']}): {v['help']} in {[n['target'] for n in v['nodes']][:4]}" for v in found["violations"]]
    check(f"{what}: no axe violation of level A or AA ({len(found['passes'])} rules pass)", not told, told)
    unsure = {v["id"]: len(v["nodes"]) for v in found["incomplete"]}
    if unsure:  # text on a picture, and such: not a violation, to look at
        print(f"     {what}: axe can't tell: {unsure}", [n["target"] for v in found["incomplete"] for n in v["nodes"]][:20])


def fits(page, what):
    """Nothing but the boxes made for it scrolls sideways."""
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    check(f"{what}: no sideways scrolling", width[0] <= width[1], width)


def picture(page, canvas):
    """What a canvas shows, as Pillow image."""
    url = canvas.evaluate("canvas => canvas.toDataURL()")
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))


def expected(sheet, row, columns, gap=2):
    """What the canvas of a sheet's row must show."""
    whole = Image.open(io.BytesIO(base64.b64decode(sheet["src"].split(",")[1])))
    width, height, (across, down) = sheet["width"], sheet["height"], sheet["pitch"]
    made = Image.new("RGBA", (len(columns) * (width + gap) - gap, height))
    for i, column in enumerate(columns):
        made.paste(whole.crop((column * across, row * down, column * across + width, row * down + height)), (i * (width + gap), 0))
    return made


def same(page, canvas, image):
    found = drawn(page) and picture(page, canvas)
    return found and found.size == image.size and max(high for _, high in ImageChops.difference(found, image).getextrema()) <= 2


def button(page, method, row, column):
    return page.locator(f".map >> nth={method}").locator("tbody tr").nth(row).locator("td").nth(column).locator("button")


def shown(page):
    """Title of the panel, and of each strip the text."""
    return page.locator("#panel-title").inner_text(), page.locator("#strips li:not(.top-row)").all_inner_texts()


def check_grid(page, data, static):
    """`static`: [method][row][column] the two numbers of each cell as they stand without JavaScript, or None."""
    every = [(m, r, c) for m, rows in enumerate(static) for r, cells in enumerate(rows) for c, cell in enumerate(cells) if cell]
    check("every cell with numbers is a button, no other is", page.locator(".map td button").count() == len(every))
    voids = [(r, c) for r, subset in enumerate(data["subsets"]) for c, name in enumerate(data["names"]) if name in subset]
    check("a cell whose target is observed is empty", all(static[0][r][c] is None for r, c in voids))
    choose = lambda group, i: page.locator(f"#{group} label").nth(i).click()
    for m, _ in enumerate(data["methods"]):
        choose("method", m)
        visible = [i for i in range(len(static)) if page.locator(".map").nth(i).is_visible()]
        check(f"method {m}: its grid alone is shown", visible == [m], visible)
        for metric, _ in enumerate(data["metrics"]):
            choose("metric", metric)
            found = page.locator(f".map >> nth={m}").locator("td button").all_inner_texts()
            check(f"method {m}, metric {metric}: the numbers are those without JavaScript",
                  found == [static[m][r][c][metric] for k, r, c in every if k == m])
            worst = page.evaluate("""m => Math.min(...[...document.querySelectorAll(".map")[m].querySelectorAll("button")].map(button => {
                const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
                const light = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).map(linear);
                                          return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
                const style = getComputedStyle(button), [a, b] = [light(style.color), light(style.backgroundColor)].sort((a, b) => b - a);
                return (a + 0.05) / (b + 0.05); }))""", m)
            check(f"method {m}, metric {metric}: contrast of all cells", worst >= 4.5, worst)
    for c, target in enumerate(data["names"]):
        for r in range(c % 5, len(data["subsets"]), 5):
            m = (r + c) % len(static)
            if not static[m][r][c]:
                continue
            choose("method", m)
            button(page, m, r, c).click()
            title, strips = shown(page)
            subset = data["subsets"][r]
            cell = f"{target} given {', '.join(subset) or 'nothing'}"
            check(f"click on {cell}: the panel is of it", title == cell, title)
            canvases, all_columns = page.locator("#strips canvas"), list(range(len(data["tuples"])))
            wanted = [(data["real"][data["names"].index(name)], 0) for name in [*subset, target]]
            rows = [page.locator(".map").nth(i).locator("tbody tr").nth(r).locator("td").nth(c).get_attribute("data-row")
                    for i in range(len(static))]
            wanted += [(data["cells"][i][c], int(row)) for i, row in enumerate(rows)]
            check(f"{cell}: a strip for each observed, the target and each method", canvases.count() == len(wanted) == len(strips))
            alike = [same(page, canvases.nth(i), expected(sheet, row, all_columns)) for i, (sheet, row) in enumerate(wanted)]
            check(f"{cell}: the samples are those of the cell", all(alike), alike)
            numbers = page.locator("#strips li:has(.swatch)").evaluate_all(
                "strips => strips.map(strip => [...strip.children].slice(2).map(cell => cell.lastChild.textContent))")
            check(f"{cell}: each method's numbers", numbers == [static[i][r][c] for i in range(len(static))], numbers)
            marked = page.locator(".map button[aria-current]").count()
            check(f"{cell}: marked in every grid", marked == len(static), marked)
    choose("method", 0)
    choose("metric", 0)


def check_grid_keys(page, data, static):
    focused = "document.activeElement"
    where = lambda: page.evaluate(f"[{focused}.closest('tr')?.sectionRowIndex, {focused}.parentElement.cellIndex - 1]")
    down = next((r, c) for c in range(len(data["names"])) for r in range(1, len(data["subsets"]) - 1)  # one with a gap below it
                if static[0][r][c] and not static[0][r + 1][c] and any(static[0][k][c] for k in range(r + 2, len(data["subsets"]))))
    button(page, 0, *down).click()
    below = [next(k for k in range(down[0] + 1, len(data["subsets"])) if static[0][k][down[1]]), down[1]]
    page.keyboard.press("ArrowDown")
    check("arrow down goes to the next cell with numbers, over gaps", where() == below, where())
    before = shown(page)
    page.keyboard.press("Enter")
    check("Enter shows the focused cell", shown(page)[0] != before[0] and shown(page)[0].startswith(data["names"][below[1]]), shown(page))
    check("and leaves the focus there", where() == below)
    page.keyboard.press("ArrowUp")
    check("arrow up goes back", where() == list(down), where())
    page.keyboard.press("Space")
    check("Space shows the focused cell", shown(page)[0] == before[0], shown(page)[0])
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    check("Tab comes back to the same cell", where() == list(down), where())
    edge = next((0, c) for c in range(len(data["names"])) if static[0][0][c])
    button(page, 0, *edge).click()
    page.keyboard.press("ArrowUp")
    check("at the edge the focus stays", where() == list(edge), where())
    page.locator("#method input").first.focus()
    page.keyboard.press("ArrowRight")
    check("arrows choose the method", page.locator(".map").nth(1).is_visible() and not page.locator(".map").nth(0).is_visible())
    page.keyboard.press("ArrowLeft")
    page.locator("#metric input").first.focus()
    page.keyboard.press("ArrowRight")
    check("arrows choose the metric", button(page, 0, *edge).inner_text() == static[0][edge[0]][edge[1]][-1])
    page.keyboard.press("ArrowLeft")


def check_ways(page, data):
    slider, frames = page.locator("#step"), page.locator(".frames")
    output = lambda i: page.locator("#samplers output").nth(i).inner_text()
    check("a sampler a way, a frame a modality", frames.count() == len(data["ways"])
          and page.locator(".frames canvas").count() == len(data["ways"]) * len(data["names"]))

    def right(k, tuple_):
        alike = [same(page, frames.nth(i).locator("canvas").nth(m), expected(sheet, k, [tuple_]))
                 for i, way in enumerate(data["ways"]) for m, sheet in enumerate(way["sheets"])]
        told = [output(i) for i in range(len(data["ways"]))] == [f"step {way['steps'][k]} of {way['steps'][-1]}" for way in data["ways"]]
        return all(alike) and told

    last = len(data["ways"][0]["steps"]) - 1
    check("at first the last step", right(last, 0))
    slider.focus()
    page.keyboard.press("Home")
    check("Home: the first step", right(0, 0))
    for k in range(1, last + 1):
        page.keyboard.press("ArrowRight")
        check(f"arrow right: step {k} of the {last + 1} shown", right(k, 0))
    check("the slider says the step", data["ways"][0]["steps"][-1] == int(slider.get_attribute("aria-valuetext").split()[1]))
    for tuple_ in range(1, len(data["tuples"])):
        page.locator("#tuple label").nth(tuple_).click()
        check(f"tuple {tuple_}", right(last, tuple_))
    page.locator("#tuple label").first.click()
    play = page.locator("#play")
    play.click()
    check("Play begins at the first step", right(0, 0) and play.inner_text() == "Stop")
    check("and ends at the last", until(lambda: play.inner_text() == "Play", 20) and right(last, 0))
    play.click()
    play.click()
    check("Stop stops", play.inner_text() == "Play")


def check_theme(page, starts_dark):
    toggle = page.locator("#theme")
    luminance = lambda: sum(map(float, page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g)")))
    cell = lambda: page.locator(".map button").first.evaluate("button => button.style.backgroundColor")
    state = lambda: (toggle.get_attribute("aria-pressed") == "true", luminance() < 300)
    check("the theme is the system's", state() == (starts_dark, starts_dark), state())
    before = cell()
    toggle.focus()
    page.keyboard.press("Enter")
    check("the button turns it", state() == (not starts_dark, not starts_dark), state())
    check("and the heat map's colours", cell() != before)
    page.keyboard.press("Space")
    check("and back", state() == (starts_dark, starts_dark) and cell() == before)


def check_focus(page):
    """Tab through the page: every stop shows an outline, none is a trap, and nothing that is hidden is reached."""
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    stops, blind = [], []
    for _ in range(200):
        page.keyboard.press("Tab")
        stop = page.evaluate("""() => {
            const at = document.activeElement, shown = [at, at.closest("label")].filter(Boolean).map(e => getComputedStyle(e));
            if (at === document.body) return null;
            const box = at.getBoundingClientRect();
            return [at.id || at.getAttribute("aria-label") || at.textContent.trim().slice(0, 30) || at.name,
                    shown.some(s => s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2) && box.width > 0,
                    box.bottom > 0 && box.top < innerHeight]; }""")
        if stop is None:
            break
        stops.append(stop[0])
        blind += [] if stop[1] and stop[2] else [stop]
    check(f"Tab goes through the page ({len(stops)} stops) and out of it", 10 < len(stops) < 200, stops)
    check("every stop is on the screen and has an outline", not blind, blind)


def static_numbers(page):
    """[method][row][column]: the numbers of the cells without JavaScript, None where there are none."""
    return page.locator(".map table").evaluate_all(
        "tables => tables.map(table => [...table.tBodies[0].rows].map(row => [...row.cells].slice(1).map("
        "cell => cell.dataset.row === undefined ? null : [...cell.children].map(span => span.textContent))))")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--screenshots", type=Path, help="a folder for pictures of the page, light and dark, wide and on a phone")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser; default: the one on the PATH")
    options = parser.parse_args()
    url = options.page.resolve().as_uri()

    def keep(page, name):
        if options.screenshots:
            options.screenshots.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=options.screenshots / f"{name}.png", full_page=True)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=FLAGS, chromium_sandbox=os.geteuid() != 0)
        with opened(browser, url, "without JavaScript", java_script_enabled=False) as page:
            static = static_numbers(page)
            data = json.loads(page.locator("#data").text_content())
            live = page.locator(".live")
            check("without JavaScript: no control is shown", not any(live.nth(i).is_visible() for i in range(live.count())))
            tables = page.locator("table")
            seen = [tables.nth(i).is_visible() for i in range(tables.count())]
            check("without JavaScript: all tables are", all(seen) and len(seen) == len(static) + 2, seen)
            images = page.locator("img").evaluate_all("images => images.map(image => image.complete && image.naturalWidth)")
            check("without JavaScript: all figures are", all(images) and len(images) == page.locator(".plate").count() > 0, images)
            check("without JavaScript: the claims are", page.locator(".claims li").last.is_visible())
            fits(page, "without JavaScript")
            keep(page, "plain")
        for scheme in ("light", "dark"):
            with opened(browser, url, f"{scheme}, wide", color_scheme=scheme) as page:
                axe(page, f"{scheme}, wide")
                keep(page, f"wide-{scheme}")
                check_theme(page, scheme == "dark")
                for width in (320, 480, 768, 1024, 1920, 1280):
                    page.set_viewport_size({**WIDE, "width": width})
                    fits(page, f"{scheme}, {width} wide")
                if scheme == "light":
                    check_focus(page)
                    check_grid_keys(page, data, static)
                    check_ways(page, data)
                check_grid(page, data, static)
                page.locator("#metric label").last.click()
                page.locator("#method label").nth(1).click()
                page.locator("#step").press("Home")
                axe(page, f"{scheme}, wide, after use")
                keep(page, f"wide-{scheme}-used")
            with opened(browser, url, f"{scheme}, phone", color_scheme=scheme, viewport=PHONE, device_scale_factor=2,
                        has_touch=True) as page:
                axe(page, f"{scheme}, phone")
                fits(page, f"{scheme}, phone")
                keep(page, f"phone-{scheme}")
                button(page, 0, 0, 1).tap()
                top = page.evaluate("document.getElementById('panel').getBoundingClientRect().top")
                check(f"{scheme}, phone: a touched cell brings its samples on the screen", 0 <= top < PHONE["height"] / 2, top)
                if options.screenshots:
                    page.screenshot(path=options.screenshots / f"phone-{scheme}-cell.png")
        browser.close()
    print(f"{options.page}: {f'{len(failures)} checks fail' if failures else 'all checks hold'}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
