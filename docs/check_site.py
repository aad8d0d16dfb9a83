"""Open every page of the built site in headless Chromium, as a reader would, without a network.

    python -m zensical build --strict && python docs/check_site.py

Each page opens from the file system at 360 and at 1,280 pixels: without a message in the console, without a
request to another host, and without sideways scrolling. Then the search is asked. Needs ``pip install
playwright`` and a Chromium, which ``--chromium`` names where it is not ``chromium`` on the path.
"""

import argparse
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

SITE = Path(__file__).parents[1] / "site"
WIDTHS = {360: "light", 1280: "dark"}
"""In pixels, and the colour scheme that is seen at each."""
LOUD = {"error", "warning"}
QUESTIONS = {
    "HessianAlignment": "reference/alignment.html#hessalign.alignment.HessianAlignment",
    "choosing weights": "choosing-weights.html",
}
"""What is searched for, and the section that is to be found first."""


def open_page(browser: Browser, width: int, scheme: str) -> tuple[Page, list[str]]:
    """A tab of one width, and the list of what goes wrong in it."""
    page = browser.new_context(
        color_scheme=scheme, offline=True, viewport={"width": width, "height": 900}
    ).new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in LOUD else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(f"not loaded: {request.url}"))
    return page, said


def sideways(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def search(page: Page, question: str) -> str:
    """Where the first answer of the search leads."""
    page.goto((SITE / "index.html").as_uri())
    page.wait_for_timeout(1000)
    page.keyboard.press("/")
    page.wait_for_timeout(1000)
    page.keyboard.type(question)
    page.wait_for_timeout(2000)
    page.keyboard.press("Enter")
    page.wait_for_timeout(1000)
    return page.url


def main() -> None:
    """Look at everything; exit with 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--screenshots", type=Path, help="folder for pictures of all pages")
    options = parser.parse_args()
    paths = sorted({*SITE.rglob("*.html")} - {SITE / "404.html"})  # which only a server shows
    troubles = [] if paths else ["there is no site: python -m zensical build --strict"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium)
        for width, scheme in WIDTHS.items():
            page, said = open_page(browser, width, scheme)
            for path in paths:
                page.goto(path.as_uri(), wait_until="networkidle")
                name = path.relative_to(SITE).as_posix()
                if (wide := sideways(page)) > 0:
                    said.append(f"scrolls sideways by {wide} pixels")
                troubles += [f"{name} at {width} pixels: {each}" for each in said]
                said.clear()
                if options.screenshots:
                    options.screenshots.mkdir(parents=True, exist_ok=True)
                    page.screenshot(path=options.screenshots / f"{name.replace('/', '-')}-{width}.png")
        page, said = open_page(browser, max(WIDTHS), "light")
        for question, section in QUESTIONS.items():
            address = search(page, question)
            name, _, anchor = section.partition("#")
            if f"/{name}" not in address or not address.endswith(anchor):
                troubles.append(f"search for {question!r} led to {address}")
        browser.close()
    print("\n".join(troubles) or f"{len(paths)} pages are well")
    sys.exit(1 if troubles else 0)


if __name__ == "__main__":
    main()
