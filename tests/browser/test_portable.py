"""The page of `clcae report` in a real Chromium without a network: images shown, tables sorted."""

from clcae_lib.suite.report import portable_report
from tests.browser.conftest import ROOT


def test_the_page_shows_and_sorts_without_a_network(browser, tmp_path):
    page_file = portable_report(ROOT / "results" / "reference", target=tmp_path)
    moved = tmp_path / "elsewhere" / "page.html"
    moved.parent.mkdir()
    page_file.rename(moved)
    errors, requests = [], []
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(moved.as_uri())
    broken = "() => [...document.images].filter((i) => i.loading !== 'lazy' && !i.naturalWidth).length"
    assert page.evaluate("() => document.images.length") > 5
    assert page.evaluate(broken) == 0
    column = page.locator("table").first.locator("tbody tr td:nth-child(1)")
    before = column.all_inner_texts()
    heads = page.locator("table").first.locator("thead th")
    heads.first.locator("button").click()
    rising = column.all_inner_texts()
    assert heads.first.get_attribute("aria-sort") == "ascending"
    heads.first.locator("button").click()
    falling = column.all_inner_texts()
    numbers = page.evaluate(
        """() => {
          const table = [...document.querySelectorAll("table")]
            .find((t) => t.querySelector("td[data-sort]"));
          const i = table.querySelector("td[data-sort]").cellIndex;
          table.querySelectorAll("thead th button")[i].click();
          return [...table.tBodies[0].rows].map((r) => r.cells[i].dataset.sort).filter((x) =>
          x).map(Number);
        }"""
    )
    context.close()
    assert sorted(rising) == sorted(before) == sorted(falling)
    assert rising[0] != falling[0]
    assert len(numbers) > 2
    assert numbers == sorted(numbers), "by value, not by the text of it"
    assert errors == []
    assert all(url.startswith(("file:", "data:")) for url in requests)
