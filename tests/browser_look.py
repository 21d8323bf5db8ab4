"""Open a page in headless Chromium at several widths, in both colour schemes; print what was seen as JSON.

Run as, with the Python that has playwright:
    .venv-dev/bin/python tests/browser_look.py page.html [folder for screenshots]
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = (390, 820, 1440)
LOOK = """() => {
    const seen = element => element.getBoundingClientRect().width > 0;
    const scale = text => { const matrix = text.getScreenCTM(); return Math.hypot(matrix.a, matrix.b); };
    const pixels = text => parseFloat(getComputedStyle(text).fontSize) * scale(text);
    return {
        scroll_width: document.documentElement.scrollWidth,
        background: getComputedStyle(document.body).backgroundColor,
        charts: [...document.querySelectorAll('svg')].filter(seen).length,
        smallest_text: Math.min(...[...document.querySelectorAll('svg text')].filter(seen).map(pixels)),
        ids: [...document.querySelectorAll('[id]')].map(element => element.id),

    };
}"""


def look(page_file: Path, pictures: Path | None) -> dict[str, object]:
    console: list[str] = []
    requests: list[str] = []
    looks: list[dict[str, object]] = []
    address = page_file.resolve().as_uri()
    with sync_playwright() as playwright:
        path = next(found for name in BROWSERS if (found := shutil.which(name)))
        # Root, as in a container, has no sandbox; a small /dev/shm is not enough for a tall screenshot.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        for scheme in ("light", "dark"):
            for width in WIDTHS:
                context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
                page = context.new_page()
                page.on("console", lambda message: console.append(f"{message.type}: {message.text}"))
                page.on("pageerror", lambda error: console.append(str(error)))
                page.on("request", lambda request: requests.append(request.url))
                page.goto(address)
                look_now = page.evaluate(LOOK)
                ids = look_now.pop("ids")
                look_now["ids_are_unique"] = len(ids) == len(set(ids))
                looks.append({"width": width, "scheme": scheme, "text": page.inner_text("body"), **look_now})
                if pictures:
                    page.screenshot(path=str(pictures / f"{width}-{scheme}.png"), full_page=True)
                context.close()
        browser.close()
    others = [url for url in requests if url != address]
    return {"console": console, "requests": others, "looks": looks}


if __name__ == "__main__":
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    json.dump(look(Path(sys.argv[1]), folder), sys.stdout)
