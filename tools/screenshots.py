"""Takes the pictures of docs/images from the real UI on the demo's home: `make screenshots`. Needs Chromium on PATH.

Needs `make demo` to have run. The pictures are of the demo's data, so nothing in them is real.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from cdi_dagster.cli.demo_home import COLLECTION, DEMO_HOME, DemoHome
from cdi_dagster.cli.demo_runs import wait_until_loaded
from cdi_dagster.cli.servers import dagster_dev, free_port, key_service
from cdi_dagster.cli.webserver import Webserver
from cdi_dagster.published.read import read_mark

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
PATIENCE_SECONDS = 120.0
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def asset_graph(page: Page, demo: DemoHome) -> None:
    """The assets of the collection, with the state of each."""
    page.set_viewport_size({"width": 1500, "height": 740})
    page.goto(f"/locations/cdi_dagster/asset-groups/{COLLECTION.asset_name}")
    expect(page.get_by_text("auditlog_red_v", exact=True).first).to_be_visible()
    expect(page.get_by_text(f"{len(demo.days)} partitions").first).to_be_visible()


def partition(page: Page, demo: DemoHome) -> None:
    """The days of the daily records, and what the last one published."""
    page.set_viewport_size({"width": 1500, "height": 850})
    page.goto(f"/assets/{COLLECTION.asset_name}/daily_records?view=partitions&partition={demo.days[-1].storage_day}")
    expect(page.get_by_role("row").filter(has_text="records_published")).to_be_visible()


def main() -> int:
    """Take them all."""
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        print("Chromium is needed and not there. Install it (Debian: apt-get install chromium)", file=sys.stderr)
        return 1
    demo = DemoHome.open(DEMO_HOME, days=4)
    if read_mark(demo.published, COLLECTION.on(demo.days[-1].storage_day)) is None:
        print("The demo has not run here yet: run make demo first", file=sys.stderr)
        return 1
    port = free_port()
    log_path = demo.folder / "logs" / "dagster.log"
    with (
        key_service(demo.folder) as dks_url,
        dagster_dev(demo.environment(dks_url), port=port, log_path=log_path) as dagster,
        sync_playwright() as playwright,
    ):
        url = f"http://127.0.0.1:{port}"
        wait_until_loaded(Webserver(url), dagster)
        # Without its sandbox, which root may not use: it opens nothing but our own pages.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(base_url=url)
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        expect.set_options(timeout=PATIENCE_SECONDS * 1000)
        for picture in (asset_graph, partition):
            picture(page, demo)
            page.wait_for_timeout(2_000)  # icons and states come last
            page.screenshot(path=IMAGES / f"{picture.__name__}.png")
            print(f"docs/images/{picture.__name__}.png")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
