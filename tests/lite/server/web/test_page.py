"""The web page itself: settings, refusals, pictures, keyboard, phone, colours."""

import pytest
from PIL import Image

from tests.conftest import FIXTURE

BLUE = FIXTURE / "images" / "0.png"
ENDLESS = {"max_tokens": 15_000}
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}

# A file as the browser hands it over when it is dropped or pasted.
HAND_OVER = """([kind, name, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
  const options = { bubbles: true, cancelable: true };
  const event = kind === "paste"
    ? new ClipboardEvent(kind, { ...options, clipboardData: data })
    : new DragEvent(kind, { ...options, dataTransfer: data });
  document.getElementById("question").dispatchEvent(event);
}"""
# Contrast ratio of WCAG 2.2, 1.4.3, of two custom properties, as the page paints them.
CONTRAST = """([over, under]) => {
  const light = (name) => {
    const box = document.body.appendChild(document.createElement("i"));
    box.style.color = `var(--${name})`;
    const [r, g, b] = getComputedStyle(box).color.match(/[\\d.]+/g).map((v) => {
      const c = v / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    box.remove();
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [a, b] = [light(over), light(under)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}"""
UNNAMED = """() => [...document.querySelectorAll("button, input, textarea, a")]
  .filter((e) => e.checkVisibility())
  .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length))
  .map((e) => e.outerHTML)"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_settings_reach_the_server_and_are_kept(page):
    page.button("Settings").click()
    values = {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "max_tokens": 7,
        "seed": 5,
    }
    for name, value in values.items():
        page.tab.fill(f"#set-{name}", str(value))
    page.tab.get_by_label("System line").fill("Answer in verse.")
    page.button("Done").click()
    page.reload()
    with page.tab.expect_request("**/v1/chat/completions") as request:
        asked = page.ask("What is this?")
    sent = request.value.post_data_json
    assert {name: sent[name] for name in values} == values
    assert sent["messages"][0] == {"role": "system", "content": "Answer in verse."}
    assert asked["timings"]["new_tokens"] <= 7

    page.button("Settings").click()
    page.button("Reset to defaults").click()
    page.button("Done").click()
    with page.tab.expect_request("**/v1/chat/completions") as request:
        page.send("And this?")
    assert request.value.post_data_json["temperature"] == 0
    assert "seed" not in request.value.post_data_json
    assert request.value.post_data_json["messages"][0]["role"] == "user"


def test_a_setting_out_of_range_is_said_and_not_taken(page):
    page.button("Settings").click()
    page.tab.fill("#set-top_p", "1.5")
    assert page.tab.text_content("#hint-top_p") == "Give a number from 0 to 1; 1 holds."
    page.button("Done").click()
    with page.tab.expect_request("**/v1/chat/completions") as request:
        page.ask("What is this?")
    assert request.value.post_data_json["top_p"] == 1


def test_a_server_with_a_key_is_asked_with_it(open_page, start):
    page = open_page(start(api_key="open sesame"))
    page.expected = ("401",)
    page.tab.locator("#about form").wait_for()
    page.send("What is this?")
    page.error.wait_for()
    page.error.get_by_label("Key of the server").fill("open sesame")
    page.button("Save and retry").click()
    page.wait()
    page.reload()
    page.ask("And that?")


def test_a_full_queue_is_one_sentence_with_a_retry(open_page, start):
    page = open_page(start(parallel=1, queue=0), settings=ENDLESS)
    page.expected = ("429",)
    page.send("Tell me a story.")
    page.wait_for_text()
    page.button("New conversation").click()
    page.send("Me too.")
    page.error.wait_for()
    assert page.wait("failed")["error"] == page.error.locator("p").text_content()
    page.button("Tell me a story.").click()
    page.button("Stop").click()
    page.wait("stopped")
    page.button("Me too.").click()
    page.button("Retry").click()
    page.wait_for_text()
    page.button("Stop").click()
    page.wait("stopped")


def test_a_server_that_is_gone_is_said_and_the_question_stays(page):
    page.expected = ("ERR_CONNECTION_REFUSED", "ERR_FAILED")
    page.tab.route("**/v1/chat/completions", lambda route: route.abort())
    page.send("What is this?", BLUE)
    assert "cannot be reached" in page.wait("failed")["error"]
    page.tab.unroute("**/v1/chat/completions")
    page.button("Retry").click()
    assert page.wait()["timings"]["images_computed"] + page.exchanges[0]["timings"]["images_cached"]


def test_a_large_photo_is_made_small_and_upright(page, tmp_path):
    photo = Image.effect_noise((3000, 2000), 40).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned right
    photo.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    page.ask("What is this?", tmp_path / "photo.jpg")
    shown = page.exchanges[0]["images"][0]
    assert (shown["width"], shown["height"]) == (1045, 1568)
    kept = page.tab.evaluate("(id) => document.querySelector('.pictures img').naturalHeight", None)
    assert kept == 1568


def test_what_is_no_picture_is_said_and_left_out(page, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    page.tab.set_input_files("#files", [tmp_path / "notes.png", BLUE])
    page.thumbnails.wait_for()
    assert "notes.png is not a picture" in page.toast.text_content()
    assert page.thumbnails.count() == 1


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_pictures_can_be_pasted_and_dropped(page, kind):
    page.tab.evaluate(HAND_OVER, [kind, "blue.png", [*BLUE.read_bytes()]])
    page.thumbnails.wait_for()
    page.ask("What is this?")
    assert [image["name"] for image in page.exchanges[0]["images"]] == ["blue.png"]


def test_everything_can_be_done_with_the_keyboard(page):
    tab, keys = page.tab, page.tab.keyboard
    assert tab.evaluate("document.activeElement.id") == "question"
    keys.type("What is this?")
    keys.press("Shift+Enter")
    keys.type("And that?")
    keys.press("Enter")
    assert page.wait()["question"] == "What is this?\nAnd that?"
    seen = []
    for _ in range(14):
        keys.press("Tab")
        seen.append(tab.evaluate("document.activeElement.ariaLabel || document.activeElement.id"))
    order = ["new-session", "Dark or light", "Settings", "Edit the question", "Copy the answer"]
    assert [name for name in seen if name in order] == order
    while tab.evaluate("document.activeElement.ariaLabel") != "Settings":
        keys.press("Shift+Tab")
    keys.press("Enter")
    assert tab.is_visible("#settings")
    keys.press("Escape")
    assert not tab.is_visible("#settings")
    assert tab.evaluate("document.activeElement.ariaLabel") == "Settings"


def test_every_control_has_a_name_and_the_answer_is_announced(page):
    asked = page.ask("What is this?", BLUE)
    page.button("Settings").click()
    assert page.tab.evaluate(UNNAMED) == []
    announced = page.tab.locator("#announced")
    assert announced.get_attribute("aria-live") == "polite"
    assert announced.text_content() == asked["answer"]


def test_a_phone_shows_all_of_it_without_scrolling_sideways(open_page, scene):
    page = open_page(**PHONE)
    assert page.tab.evaluate(OVERFLOW) == 0
    page.ask("What is in the image? " + "Donaudampfschifffahrtsgesellschaft" * 3, scene, scene)
    page.button("Settings").tap()
    assert page.tab.evaluate(OVERFLOW) == 0
    page.tab.keyboard.press("Escape")
    page.button("Conversations").tap()
    page.button("New conversation").tap()
    page.tab.wait_for_selector("#empty")
    page.tab.wait_for_selector("#side", state="hidden")
    assert page.tab.evaluate(OVERFLOW) == 0


COVERED = """() => {
  const box = document.getElementById("composer").getBoundingClientRect();
  const points = [0.02, 0.25, 0.5, 0.75, 0.98].flatMap((x) => [0.1, 0.5, 0.9].map((y) => [x, y]));
  return points.filter(([x, y]) => !document.elementFromPoint(
    box.left + x * box.width, box.top + y * box.height).closest("#composer"));
}"""


@pytest.mark.parametrize("look", [{}, PHONE], ids=["desktop", "phone"])
def test_nothing_covers_the_composer(open_page, tmp_path, look):
    page = open_page(**look)
    rows = [{"question": "Why?", "answer": "word\n\n" * 40}] * 3
    page.import_conversation(tmp_path / "Long.json", *rows)
    page.tab.locator("#scroller").evaluate("(box) => box.scrollTo(0, 0)")
    page.tab.wait_for_selector("#newest:visible")
    (tmp_path / "notes.png").write_text("no picture")
    page.tab.set_input_files("#files", [tmp_path / "notes.png", *[BLUE] * 9])
    page.thumbnails.nth(8).wait_for()
    assert page.toast.is_visible()
    assert page.tab.evaluate(COVERED) == []
    box, area = page.tab.locator("#composer").bounding_box(), page.tab.viewport_size
    assert box["y"] + box["height"] <= area["height"]
    assert box["height"] < 0.6 * area["height"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_keep_the_contrast_of_wcag_aa(open_page, scheme):
    page = open_page(color_scheme=scheme)
    for under in ("ground", "raised", "sunken"):
        for over in ("text", "muted", "accent"):
            assert page.tab.evaluate(CONTRAST, [over, under]) >= 4.5, (over, under)
        assert page.tab.evaluate(CONTRAST, ["edge", under]) >= 3, under
    for over, under in (("text", "bubble"), ("on-accent", "accent"), ("wrong", "wrong-ground")):
        assert page.tab.evaluate(CONTRAST, [over, under]) >= 4.5, (over, under)


def test_the_theme_can_be_turned_and_stays(open_page):
    page = open_page(color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.tab.evaluate(ground)
    page.button("Dark or light").click()
    dark = page.tab.evaluate(ground)
    page.tab.reload()
    assert page.tab.evaluate(ground) == dark != light


def test_the_page_may_load_from_its_server_only(page):
    response = page.tab.request.get(page.url)
    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert "unsafe" not in response.headers["content-security-policy"]
