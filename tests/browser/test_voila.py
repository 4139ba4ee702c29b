"""The explorer as Voila serves it, looked at with a real browser."""

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import Visit, voila
from tests.unit.test_photos_reading import png

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("voila")]


@pytest.fixture(scope="module")
def address(browser):
    with voila("--visitors", "2") as served:
        yield served


@pytest.fixture(scope="module")
def visit(browser, address):
    shown = Visit(browser, address).ready()
    yield shown
    shown.close()


@pytest.fixture
def portrait(tmp_path):
    path = tmp_path / "me.png"
    colours = np.linspace(0, 255, 80 * 60 * 3).reshape(80, 60, 3).astype(np.uint8)
    Image.fromarray(colours).save(path)
    return path


def test_a_slider_changes_the_image_and_undo_brings_it_back(visit):
    before = visit.image()
    visit.press("yaw", "ArrowRight", 20)
    changed = visit.changes_from(before)
    visit.shows("edits={'yaw': 1.0}")
    visit.shoot("voila_edited")
    visit.button("Undo").click()
    visit.becomes(before)
    visit.button("Redo").click()
    visit.changes_from(before)
    visit.reset()
    visit.becomes(before)
    assert changed != before
    visit.check()


def test_uploads_are_inverted_and_hostile_ones_refused_in_a_sentence(visit, portrait, tmp_path):
    visit.open("Source")
    before = visit.image()
    visit.upload("Upload an image", portrait)
    visit.changes_from(before)
    assert "clcae-error" not in visit.page.locator(".clcae-status").inner_html()
    phone, plain = tmp_path / "phone.jpg", visit.image()
    noise = np.random.default_rng(0).integers(0, 256, (3500, 5000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(phone, quality=95)
    assert phone.stat().st_size > 8_000_000
    visit.upload("Upload an image", phone)  # reduced before it travels
    visit.changes_from(plain)
    assert "clcae-error" not in visit.page.locator(".clcae-status").inner_html()
    assert "clcae-error" not in visit.page.locator(".clcae-status").inner_html()
    large, small = visit.image(), tmp_path / "small.avif"
    Image.open(portrait).convert("RGB").save(small)
    visit.upload("Upload an image", small)  # made JPEG before it travels
    visit.changes_from(large)
    photograph, unmarked = visit.page.locator("img.clcae-mark"), visit.image()
    for x, y in ((60, 60), (100, 60), (80, 80), (65, 100), (95, 100)):
        photograph.click(position={"x": x, "y": y})
    shown = visit.changes_from(unmarked)
    visit.page.locator("a.clcae-save", has_text="Save the landmarks").wait_for()
    script = tmp_path / "<b>face.png"
    script.write_text("<script>document.title='owned'</script>")
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png((60_000, 60_000, 8, 2, 0, 0, 0), bytes(1_000_000)))
    huge = tmp_path / "huge.png"
    with huge.open("wb") as file:
        file.truncate(100_000_000)
    for path, words in ((script, "not a PNG, JPEG or WebP"), (bomb, "pixels"), (huge, "more than 8 MB")):
        visit.upload("Upload an image", path)
        alert = visit.page.locator(".clcae-status p[role=alert]", has_text=words)
        alert.wait_for(timeout=30_000)
        assert visit.page.locator(".clcae-status p b").count() == 0, "a visitor's text became markup"
    visit.shoot("voila_refused")
    assert visit.page.title() != "owned"
    assert visit.image() == shown, "a refused file changed the image"
    visit.open("Directions")
    visit.reset()
    visit.check(allowed="error in file upload")


def test_nothing_is_cut_off_sideways_and_everything_has_a_name(visit):
    for width in (1280, 640):  # the second is what 200 % zoom leaves of the first
        visit.page.set_viewport_size({"width": width, "height": 720})
        visit.page.wait_for_function(f"document.documentElement.scrollWidth <= {width}")
        visit.shoot(f"voila_{width}")
    visit.page.set_viewport_size({"width": 1280, "height": 720})
    unnamed = "[...document.querySelectorAll('.clcae-explorer .noUi-handle, .clcae-explorer img')]"
    names = visit.page.evaluate(f"{unnamed}.map(e => e.getAttribute('aria-label') || e.alt || '')")
    assert len(names) > 20
    assert all(names)


def test_at_200_percent_zoom_everything_is_reached(browser, address):
    zoomed = Visit(browser, address, width=640, height=360, zoom=2).ready()
    assert zoomed.page.evaluate("devicePixelRatio") == 2
    assert zoomed.page.evaluate("document.documentElement.scrollWidth") <= 640
    before, handle = zoomed.image(), zoomed.slider("yaw")
    handle.scroll_into_view_if_needed()
    zoomed.press("yaw", "PageUp")
    zoomed.changes_from(before)
    for name in ("Undo", "Reset", "PNG", "GIF", "Copy"):
        zoomed.button(name).scroll_into_view_if_needed()
        box = zoomed.button(name).bounding_box()
        assert box["x"] >= 0, name
        assert box["x"] + box["width"] <= 640, name
    handle.scroll_into_view_if_needed()
    image = zoomed.page.locator("img.clcae-after").bounding_box()
    assert 0 <= image["y"] <= 360 - image["height"], "a dragged slider's image must be in sight"
    zoomed.shoot("voila_zoomed")
    zoomed.check()
    zoomed.close()


def test_two_visitors_do_not_see_each_other_and_a_third_is_turned_away(visit, browser, address):
    mine = visit.image()
    other = Visit(browser, address).ready()
    assert other.image() == mine, "both begin with the same face"
    other.press("yaw", "ArrowLeft", 20)
    other.shows("edits={'yaw': -1.0}")
    theirs = other.image()
    assert visit.image() == mine
    visit.press("yaw", "ArrowRight", 20)
    assert visit.changes_from(mine) != theirs
    third = browser.new_page()
    answer = third.goto(address)
    assert answer.status == 503
    assert "places are taken" in third.inner_text("body")
    third.close()
    other.check()
    visit.check()
    other.close()
