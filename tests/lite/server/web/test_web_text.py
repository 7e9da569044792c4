"""Text on the web page: what people write is literal, what the model writes is light Markdown."""

import pytest

HOSTILE = """<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>"""
MARKDOWN = """async (text) => {
  const { render } = await import("./markdown.js");
  const box = document.createElement("div");
  render(box, text);
  return box.innerHTML;
}"""


def test_what_people_write_is_shown_literally(page):
    page.ask(f"{HOSTILE} **not bold**\n  second line")
    assert page.questions.text_content() == f"{HOSTILE} **not bold**\n  second line"
    assert page.questions.locator("*").count() == 0
    page.until(lambda: page.names == [HOSTILE[:60]])
    assert "owned" not in page.tab.title().replace(HOSTILE[:60], "")


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("one\ntwo\n\nthree", "<p>one\ntwo</p><p>three</p>"),
        ("**b** *i* `c` _i_", "<p><strong>b</strong> <em>i</em> <code>c</code> <em>i</em></p>"),
        ("2*3*4 snake_case_name **open", "<p>2*3*4 snake_case_name **open</p>"),
        ("**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"),
        ("# T\ntext", "<h4>T</h4><p>text</p>"),
        ("- a\n  - b\n- c", "<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>"),
        ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
        (
            f"{HOSTILE} [x](javascript:alert(1)) ![y](http://example.com/y.png)",
            "<p>{}</p>".format(
                f"{HOSTILE} [x](javascript:alert(1)) ![y](http://example.com/y.png)".replace(
                    "<", "&lt;"
                ).replace(">", "&gt;")
            ),
        ),
    ],
)
def test_answers_show_light_markdown_and_nothing_else(page, text, html):
    assert page.tab.evaluate(MARKDOWN, text) == html


def test_a_code_block_is_literal_and_can_be_copied(page):
    html = page.tab.evaluate(MARKDOWN, "```html\n<b>**x**</b>\n```\nafter")
    assert "<code>&lt;b&gt;**x**&lt;/b&gt;</code>" in html
    assert 'aria-label="Copy the code"' in html
    assert html.endswith("<p>after</p>")
