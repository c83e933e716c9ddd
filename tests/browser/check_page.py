"""The report page in a real browser without network: clicks, keys, samples, accessibility, phones.

    python -m tests.browser.check_page reports/index.html --screenshots FOLDER

Wants Debian's `chromium` and tests/browser/requirements.txt. Prints one line per check; exit code 1
where one fails.
"""

import argparse
import base64
import contextlib
import io
import itertools
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
FLAGS = [
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 320, "height": 640}
failures = []

LOADED = "images => images.map(image => image.complete && image.naturalWidth)"

RUN_AXE = """levels => axe.run(
    document, {runOnly: levels, resultTypes: ["violations", "incomplete"]})"""

# [method][row][column]: the texts of a cell's numbers, null where it has none.
STATIC_NUMBERS = """tables => tables.map(table =>
    [...table.tBodies[0].rows].map(row => [...row.cells].slice(1).map(cell =>
        cell.dataset.row === undefined ? null : [...cell.children].map(e => e.textContent))))"""

# The least contrast between text and background among the buttons of a grid, as WCAG defines it.
CONTRAST = """buttons => Math.min(...buttons.map(button => {
    const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const luminance = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map(linear);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const style = getComputedStyle(button);
    const both = [luminance(style.color), luminance(style.backgroundColor)];
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
}))"""

# What each method's strip of the panel shows as its numbers.
STRIP_NUMBERS = """strips => strips.map(strip =>
    [...strip.children].slice(2).map(cell => cell.lastChild.textContent))"""

FOCUSED_CELL = """() => {
    const focused = document.activeElement;
    return [focused.closest("tr")?.sectionRowIndex, focused.parentElement.cellIndex - 1];
}"""

# The focused element: its name, whether it has an outline, whether it is on the screen.
FOCUSED = """() => {
    const focused = document.activeElement;
    if (focused === document.body) return null;
    const box = focused.getBoundingClientRect();
    const outlined = [focused, focused.closest("label")].filter(Boolean).some(e => {
        const style = getComputedStyle(e);
        return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
    });
    const text = focused.textContent.trim().slice(0, 30);
    return [focused.id || focused.getAttribute("aria-label") || text || focused.name,
            outlined && box.width > 0, box.bottom > 0 && box.top < innerHeight];
}"""


# ---- the browser


def check(what, holds, seen=""):
    """Print whether `what` holds, and what was seen instead; remember failures."""
    print(f"ok   {what}" if holds else f"FAIL {what}: {seen}", flush=True)
    if not holds:
        failures.append(what)


def launch(playwright, executable):
    """Debian's Chromium, which has no sandbox for root."""
    sandbox = os.geteuid() != 0
    return playwright.chromium.launch(
        executable_path=executable, args=FLAGS, chromium_sandbox=sandbox
    )


def console(page):
    """The list of errors and warnings of the page, which grows as they come."""
    texts = []
    page.on("console", lambda m: m.type in ("error", "warning") and texts.append(m.text))
    page.on("pageerror", lambda error: texts.append(str(error)))
    return texts


@contextlib.contextmanager
def opened(browser, url, what, viewport=WIDE, **options):
    """The page in a fresh context; at the end its console is silent, and only the file was read."""
    context = browser.new_context(viewport=viewport, offline=True, **options)
    page, requests = context.new_page(), []
    texts = console(page)
    page.on("request", lambda request: requests.append(request.url))
    page.goto(url)
    yield page
    requests = [address for address in requests if not address.startswith(("data:", "blob:"))]
    check(f"{what}: the console is silent", not texts, texts)
    check(f"{what}: nothing is asked for but the file", requests == [url], requests)
    context.close()


def until(condition, seconds=5):
    """Wait for `condition()`; returns its last value.

    Not by the browser's own means: they make code from text, which the page's policy forbids.
    """
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return value


def screenshot(page, folder, name, full_page=True):
    """Write FOLDER/NAME.png, unless `folder` is None."""
    if folder:
        page.screenshot(path=folder / f"{name}.png", full_page=full_page)


def finish(what):
    """Print the verdict and exit."""
    print(f"{what}: {f'{len(failures)} checks fail' if failures else 'all checks hold'}")
    sys.exit(bool(failures))


# ---- parts of the page


def drawn(page):
    """Whether all canvases are drawn within a few seconds."""
    return until(lambda: page.locator("canvas:not([data-drawn])").count() == 0)


def decoded(url):
    """The image of a data URL."""
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))


def expected(sheet, row, columns, gap=2):
    """What the canvas of a sheet's row must show."""
    whole, width, height = decoded(sheet["src"]), sheet["width"], sheet["height"]
    across, down = sheet["pitch"]
    image = Image.new("RGBA", (len(columns) * (width + gap) - gap, height))
    for i, column in enumerate(columns):
        x, y = column * across, row * down
        image.paste(whole.crop((x, y, x + width, y + height)), (i * (width + gap), 0))
    return image


def same(page, canvas, image):
    """Whether the canvas shows `image`, up to rounding."""
    if not drawn(page):
        return False
    actual = decoded(canvas.evaluate("canvas => canvas.toDataURL()"))
    if actual.size != image.size:
        return False
    return max(high for _, high in ImageChops.difference(actual, image).getextrema()) <= 2


def cell_at(page, method, row, column):
    """A cell of a method's grid."""
    body = page.locator(f".map >> nth={method}").locator("tbody tr")
    return body.nth(row).locator("td").nth(column)


def button(page, method, row, column):
    """The button in a cell of a method's grid."""
    return cell_at(page, method, row, column).locator("button")


def choose(page, group, i):
    """Click the i-th of the choices `group`: method, metric or tuple."""
    page.locator(f"#{group} label").nth(i).click()


def panel_title(page):
    """The title over the samples of a cell."""
    return page.locator("#panel-title").inner_text()


# ---- the checks


def check_axe(page, what):
    """No violation of level A or AA on the page as it stands."""
    check(f"{what}: all samples are drawn", drawn(page))
    page.evaluate(AXE)
    result = page.evaluate(RUN_AXE, LEVELS)
    violations = [
        f"{v['id']} ({v['impact']}): {v['help']} in {[n['target'] for n in v['nodes']][:4]}"
        for v in result["violations"]
    ]
    n_rules = len(result["passes"])
    title = f"{what}: no axe violation of level A or AA ({n_rules} rules pass)"
    check(title, not violations, violations)
    unsure = {v["id"]: len(v["nodes"]) for v in result["incomplete"]}
    if unsure:  # text on a picture, and such: not a violation, to look at
        targets = [n["target"] for v in result["incomplete"] for n in v["nodes"]]
        print(f"     {what}: axe can't tell: {unsure}", targets[:20])


def check_width(page, what):
    """Nothing but the boxes made for it scrolls sideways."""
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    check(f"{what}: no sideways scrolling", width[0] <= width[1], width)


def check_grid(page, data, static):
    """Cells are buttons with their numbers, and show their samples; `static`: STATIC_NUMBERS."""
    n_cells = sum(bool(cell) for rows in static for cells in rows for cell in cells)
    n_buttons = page.locator(".map td button").count()
    check("every cell with numbers is a button, no other is", n_buttons == n_cells)
    empty = [
        static[0][r][c] is None
        for r, subset in enumerate(data["subsets"])
        for c, name in enumerate(data["names"])
        if name in subset
    ]
    check("a cell whose target is observed is empty", all(empty))
    for m in range(len(data["methods"])):
        choose(page, "method", m)
        check_grid_shown(page, data, static, m)
    for c in range(len(data["names"])):
        for r in range(c % 5, len(data["subsets"]), 5):
            m = (r + c) % len(static)
            if static[m][r][c]:
                choose(page, "method", m)
                button(page, m, r, c).click()
                check_panel(page, data, static, r, c)
    choose(page, "method", 0)
    choose(page, "metric", 0)


def check_grid_shown(page, data, static, m):
    """The chosen method's grid alone is shown, with its numbers under every metric."""
    visible = [i for i in range(len(static)) if page.locator(".map").nth(i).is_visible()]
    check(f"method {m}: its grid alone is shown", visible == [m], visible)
    cells = [cell for row in static[m] for cell in row if cell]
    for metric in range(len(data["metrics"])):
        choose(page, "metric", metric)
        what = f"method {m}, metric {metric}"
        buttons = page.locator(f".map >> nth={m}").locator("td button")
        numbers = [cell[metric] for cell in cells]
        agree = buttons.all_inner_texts() == numbers
        check(f"{what}: the numbers are those without JavaScript", agree)
        contrast = buttons.evaluate_all(CONTRAST)
        check(f"{what}: contrast of all cells", contrast >= 4.5, contrast)


def check_panel(page, data, static, r, c):
    """The panel after a click on a cell of row `r`, column `c`: its samples and numbers."""
    methods, target = range(len(static)), data["names"][c]
    cell = f"{target} given {', '.join(data['subsets'][r]) or 'nothing'}"
    title = panel_title(page)
    check(f"click on {cell}: the panel is of it", title == cell, title)
    names = [*data["subsets"][r], target]
    wanted = [(data["real"][data["names"].index(name)], 0) for name in names]
    for m in methods:
        sheet_row = cell_at(page, m, r, c).get_attribute("data-row")
        wanted.append((data["cells"][m][c], int(sheet_row)))
    canvases = page.locator("#strips canvas")
    n_strips = page.locator("#strips li:not(.top-row)").count()
    complete = canvases.count() == len(wanted) == n_strips
    check(f"{cell}: a strip for each observed, the target and each method", complete)
    columns = list(range(len(data["tuples"])))
    alike = [
        same(page, canvases.nth(i), expected(sheet, row, columns))
        for i, (sheet, row) in enumerate(wanted)
    ]
    check(f"{cell}: the samples are those of the cell", all(alike), alike)
    numbers = page.locator("#strips li:has(.swatch)").evaluate_all(STRIP_NUMBERS)
    agree = numbers == [static[m][r][c] for m in methods]
    check(f"{cell}: each method's numbers", agree, numbers)
    n_marked = page.locator(".map button[aria-current]").count()
    check(f"{cell}: marked in every grid", n_marked == len(static), n_marked)


def check_grid_keys(page, data, static):
    """Arrows move the focus between cells; Enter and Space show the focused one."""

    def check_focused(what, cell):
        focused = page.evaluate(FOCUSED_CELL)
        check(what, focused == cell, focused)

    columns = range(len(data["names"]))
    filled = [[r for r, cells in enumerate(static[0]) if cells[c]] for c in columns]
    above, below = next(  # two cells with a gap between them, below the first row
        ([r, c], [after, c])
        for c in columns
        for r, after in itertools.pairwise(filled[c])
        if 0 < r < after - 1
    )
    button(page, 0, *above).click()
    page.keyboard.press("ArrowDown")
    check_focused("arrow down goes to the next cell with numbers, over gaps", below)
    before = panel_title(page)
    page.keyboard.press("Enter")
    title = panel_title(page)
    moved = title != before and title.startswith(data["names"][below[1]])
    check("Enter shows the focused cell", moved, title)
    check_focused("and leaves the focus there", below)
    page.keyboard.press("ArrowUp")
    check_focused("arrow up goes back", above)
    page.keyboard.press("Space")
    title = panel_title(page)
    check("Space shows the focused cell", title == before, title)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    check_focused("Tab comes back to the same cell", above)
    edge = [0, next(c for c in columns if static[0][0][c])]
    button(page, 0, *edge).click()
    page.keyboard.press("ArrowUp")
    check_focused("at the edge the focus stays", edge)


def check_choice_keys(page, static):
    """Arrows choose the method and the metric."""
    page.locator("#method input").first.focus()
    page.keyboard.press("ArrowRight")
    first, second = (page.locator(".map").nth(i).is_visible() for i in range(2))
    check("arrows choose the method", second and not first)
    page.keyboard.press("ArrowLeft")
    page.locator("#metric input").first.focus()
    page.keyboard.press("ArrowRight")
    column = next(c for c, cell in enumerate(static[0][0]) if cell)
    number = button(page, 0, 0, column).inner_text()
    check("arrows choose the metric", number == static[0][0][column][-1])
    page.keyboard.press("ArrowLeft")


def at_step(page, trajectories, k, column):
    """Whether all samplers show their k-th step of the tuple in `column`."""
    steps = [f"step {t['steps'][k]} of {t['steps'][-1]}" for t in trajectories]
    alike = [
        same(page, frame.locator("canvas").nth(m), expected(sheet, k, [column]))
        for frame, trajectory in zip(page.locator(".frames").all(), trajectories, strict=False)
        for m, sheet in enumerate(trajectory["sheets"])
    ]
    return all(alike) and page.locator("#samplers output").all_inner_texts() == steps


def check_trajectories(page, data):
    """Slider, tuple and Play show the right samples."""
    trajectories, slider = data["trajectories"], page.locator("#step")
    n_frames, n_canvases = (page.locator(css).count() for css in (".frames", ".frames canvas"))
    complete = n_frames == len(trajectories) and n_canvases == n_frames * len(data["names"])
    check("a sampler per trajectory, a frame per modality", complete)
    last = len(trajectories[0]["steps"]) - 1
    check("at first the last step", at_step(page, trajectories, last, 0))
    slider.focus()
    page.keyboard.press("Home")
    check("Home: the first step", at_step(page, trajectories, 0, 0))
    for k in range(1, last + 1):
        page.keyboard.press("ArrowRight")
        what = f"arrow right: step {k} of the {last + 1} shown"
        check(what, at_step(page, trajectories, k, 0))
    step = int(slider.get_attribute("aria-valuetext").split()[1])
    check("the slider says the step", step == trajectories[0]["steps"][-1])
    for i in range(1, len(data["tuples"])):
        choose(page, "tuple", i)
        check(f"tuple {i}", at_step(page, trajectories, last, i))
    choose(page, "tuple", 0)
    play = page.locator("#play")
    play.click()
    starts = at_step(page, trajectories, 0, 0) and play.inner_text() == "Stop"
    check("Play begins at the first step", starts)
    ends = until(lambda: play.inner_text() == "Play", 20) and at_step(page, trajectories, last, 0)
    check("and ends at the last", ends)
    play.click()
    play.click()
    check("Stop stops", play.inner_text() == "Play")


def check_theme(page, starts_dark):
    """The page begins in the system's theme; the button turns it."""
    toggle = page.locator("#theme")

    def state():
        """Whether the button is pressed, whether the page is dark, and a cell's colour."""
        pressed = toggle.get_attribute("aria-pressed") == "true"
        background = "getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g)"
        dark = sum(map(float, page.evaluate(background))) < 300
        cell = page.locator(".map button").first
        return pressed, dark, cell.evaluate("button => button.style.backgroundColor")

    first = state()
    check("the theme is the system's", first[:2] == (starts_dark, starts_dark), first)
    toggle.focus()
    page.keyboard.press("Enter")
    turned = state()
    check("the button turns it", turned[:2] == (not starts_dark, not starts_dark), turned)
    check("and the heat map's colours", turned[2] != first[2])
    page.keyboard.press("Space")
    back = state()
    check("and back", back[:2] == (starts_dark, starts_dark) and back[2] == first[2])


def check_focus(page):
    """Tab stops have an outline and are on the screen; none is a trap."""
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    stops = []
    for _ in range(200):
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUSED)
        if stop is None:
            break
        stops.append(stop)
    names = [name for name, _, _ in stops]
    what = f"Tab goes through the page ({len(stops)} stops) and out of it"
    check(what, 10 < len(stops) < 200, names)
    unseen = [stop for stop in stops if not (stop[1] and stop[2])]
    check("every stop is on the screen and has an outline", not unseen, unseen)


def check_plain(page):
    """Without JavaScript all is shown but the controls. Returns the page's data and numbers."""
    static = page.locator(".map table").evaluate_all(STATIC_NUMBERS)
    controls = [control.is_visible() for control in page.locator(".live").all()]
    check("without JavaScript: no control is shown", not any(controls))
    tables = [table.is_visible() for table in page.locator("table").all()]
    complete = all(tables) and len(tables) == len(static) + 2
    check("without JavaScript: all tables are", complete, tables)
    images = page.locator("img").evaluate_all(LOADED)
    complete = all(images) and len(images) == page.locator(".plate").count() > 0
    check("without JavaScript: all figures are", complete, images)
    check("without JavaScript: the claims are", page.locator(".claims li").last.is_visible())
    check_width(page, "without JavaScript")
    return json.loads(page.locator("#data").text_content()), static


def check_wide(page, scheme, data, static, shots):
    """Everything on a wide screen; keys in the light scheme only."""
    check_axe(page, f"{scheme}, wide")
    screenshot(page, shots, f"wide-{scheme}")
    check_theme(page, scheme == "dark")
    for width in (320, 480, 768, 1024, 1920, 1280):
        page.set_viewport_size({**WIDE, "width": width})
        check_width(page, f"{scheme}, {width} wide")
    if scheme == "light":
        check_focus(page)
        check_grid_keys(page, data, static)
        check_choice_keys(page, static)
        check_trajectories(page, data)
    check_grid(page, data, static)
    choose(page, "metric", -1)
    choose(page, "method", 1)
    page.locator("#step").press("Home")
    check_axe(page, f"{scheme}, wide, after use")
    screenshot(page, shots, f"wide-{scheme}-used")


def check_phone(page, scheme, shots):
    """The page on a small touch screen."""
    what = f"{scheme}, phone"
    check_axe(page, what)
    check_width(page, what)
    screenshot(page, shots, f"phone-{scheme}")
    button(page, 0, 0, 1).tap()
    top = page.evaluate("document.getElementById('panel').getBoundingClientRect().top")
    on_screen = 0 <= top < PHONE["height"] / 2
    check(f"{what}: a touched cell brings its samples on the screen", on_screen, top)
    screenshot(page, shots, f"phone-{scheme}-cell", full_page=False)


def main():
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("page", type=Path)
    parser.add_argument("--screenshots", type=Path, help="a folder for pictures of the page")
    chromium = shutil.which("chromium")
    parser.add_argument("--chromium", default=chromium, help="default: the one on the PATH")
    args = parser.parse_args()
    url, shots = args.page.resolve().as_uri(), args.screenshots
    if shots:
        shots.mkdir(parents=True, exist_ok=True)
    phone = {"viewport": PHONE, "device_scale_factor": 2, "has_touch": True}
    with sync_playwright() as playwright:
        browser = launch(playwright, args.chromium)
        with opened(browser, url, "without JavaScript", java_script_enabled=False) as page:
            data, static = check_plain(page)
            screenshot(page, shots, "plain")
        for scheme in ("light", "dark"):
            with opened(browser, url, f"{scheme}, wide", color_scheme=scheme) as page:
                check_wide(page, scheme, data, static, shots)
            with opened(browser, url, f"{scheme}, phone", color_scheme=scheme, **phone) as page:
                check_phone(page, scheme, shots)
        browser.close()
    finish(args.page)


if __name__ == "__main__":
    main()
