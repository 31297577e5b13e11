"""What a person sees and does in the Dagster UI, in a real browser on a real Dagster."""

import os
import re
import shutil
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import TimeoutError as NotOnThePage
from playwright.sync_api import expect, sync_playwright

from cdi_dagster.core.failures import FAILURE_GUIDE, FailureClass
from cdi_dagster.published.read import read_mark
from cdi_dagster_tests.child_processes.sitecustomize import SHIFT
from cdi_dagster_tests.collections import EQUALITY
from cdi_dagster_tests.waiting import PATIENCE_SECONDS, wait_until

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.daemon,
    pytest.mark.spark,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (Debian: apt-get install chromium)"),
]
# The dialog offers the days of the last 90.
DAY_NOT_COALESCED = datetime.now(UTC).date() - timedelta(days=2)
GOOD_DAY = DAY_NOT_COALESCED - timedelta(days=1)


@contextmanager
def browser_page(url, picture_of_failure):
    with sync_playwright() as playwright:
        # Without its sandbox, which root may not use: it opens nothing but our own pages.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = browser.new_page(base_url=url, viewport={"width": 1500, "height": 1000})
            page.set_default_timeout(PATIENCE_SECONDS * 1000)
            expect.set_options(timeout=PATIENCE_SECONDS * 1000)
            if SHIFT in os.environ:  # the dialog offers the days until the browser's own
                page.clock.install(time=datetime.now(UTC))
            yield page
        except BaseException:
            page.screenshot(path=picture_of_failure)
            raise
        finally:
            browser.close()


def test_a_person_finds_the_assets_materialises_two_days_and_reads_why_one_failed(dagster, tmp_path):
    dagster.write_day(GOOD_DAY)
    with browser_page(dagster.webserver.url, tmp_path / "failed.png") as page:
        opens_the_code_location(page)
        opens_the_asset_graph(page)
        materialises(page, GOOD_DAY, DAY_NOT_COALESCED)
        reads_what_was_published(page, GOOD_DAY)
        reads_why_it_failed(page, DAY_NOT_COALESCED)
        finds_schedule_and_sensor(page)
    assert read_mark(dagster.published, EQUALITY.on(GOOD_DAY)).published == 200
    assert read_mark(dagster.published, EQUALITY.on(DAY_NOT_COALESCED)) is None


def opens_the_code_location(page):
    page.goto("/")
    page.get_by_role("link", name="Deployment").click()
    page.get_by_role("link", name="cdi_dagster").click()
    expect(page.get_by_text("Loaded", exact=True)).to_be_visible()
    expect(page.get_by_text("cdi_dagster.definitions")).to_be_visible()


def opens_the_asset_graph(page):
    page.get_by_role("tab", name="Definitions").click()
    page.get_by_text("equality", exact=True).click()
    page.get_by_role("link", name="daily_records").click()
    expect(page.get_by_text("The daily records of")).to_be_visible()
    page.get_by_role("link", name="View in graph").click()
    expect(page.get_by_text("daily_records", exact=True).first).to_be_visible()


def materialises(page, first_day, last_day):
    page.goto("/locations/cdi_dagster/asset-groups/equality")
    page.get_by_role("button", name="Materialize all").click()
    partitions = page.get_by_role("dialog").locator("input[type=text]")
    partitions.fill(f"[{first_day}...{last_day}]")
    partitions.press("Enter")
    page.get_by_role("button", name="Launch backfill").click()
    expect(page.get_by_text("Created backfill")).to_be_visible()


def opens_the_partition(page, day, *, that_says):
    """Open it, and again while its run is at work: this page of Dagster's stays as it was opened."""

    def is_there():
        page.goto(f"/assets/equality/daily_records?view=partitions&partition={day}")
        page.get_by_text("Latest materialization").wait_for()
        with suppress(NotOnThePage):
            page.get_by_text(that_says).first.wait_for(timeout=30_000)
            return True
        return False

    what = f"{that_says!r} is on the page of {day}"
    wait_until(is_there, what, seen=lambda: page.locator("body").inner_text()[-2000:])


def reads_what_was_published(page, day):
    opens_the_partition(page, day, that_says=re.compile("^Materialized$"))
    for name, value in (("records_read", "200"), ("records_published", "200"), ("records_rejected", "0")):
        expect(page.get_by_role("row").filter(has_text=name)).to_contain_text(value)


def reads_why_it_failed(page, day):
    opens_the_partition(page, day, that_says="did not materialize this asset")
    page.get_by_role("link", name=re.compile("^[0-9a-f]{8}$")).click()
    page.get_by_text("COALESCER_NOT_STARTED").first.wait_for()
    said = page.locator("body").inner_text()
    assert f"COALESCER_NOT_STARTED: coalescer for {day} has not started" in said
    assert f"Next: {FAILURE_GUIDE[FailureClass.COALESCER_NOT_STARTED].next_step}" in said


def finds_schedule_and_sensor(page):
    page.get_by_role("link", name="Automation").click()
    expect(page.get_by_text("equality_coalescer_completion_sensor")).to_be_visible()
    page.get_by_text("equality_daily_schedule").click()
    expect(page.get_by_text("launches yesterday's storage day")).to_be_visible()
