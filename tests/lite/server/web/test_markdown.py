"""Text on the web page: what people write is literal, what the model writes is Markdown."""

import hashlib
from pathlib import Path

import pytest

import lite.server

WEB = Path(lite.server.__file__).parent / "web"
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
def test_answers_show_markdown_and_nothing_else(page, text, html):
    assert page.tab.evaluate(MARKDOWN, text) == html


LINK = '<a href="{0}" target="_blank" rel="noopener noreferrer">{1}</a>'


@pytest.mark.parametrize(
    ("text", "html"),
    [
        (r"\*not\* 1 &lt; 2 &amp; 3", "<p>*not* 1 &lt; 2 &amp; 3</p>"),
        ("~~old~~ new", "<p><s>old</s> new</p>"),
        ("> quoted\n> twice\n\nafter", "<blockquote><p>quoted\ntwice</p></blockquote><p>after</p>"),
        ("over\n---\nunder", "<p>over</p><hr><p>under</p>"),
        ("1. a\n\n   b\n2. c", "<ol><li><p>a</p><p>b</p></li><li><p>c</p></li></ol>"),
        ("# a\n***b** c*", "<h4>a</h4><p><em><strong>b</strong> c</em></p>"),
        (
            "[a](https://b.example/c?d=1&e=2)",
            "<p>{}{}</p>".format(
                LINK.format("https://b.example/c?d=1&amp;e=2", "a"),
                '<span class="address"> (https://b.example/c?d=1&amp;e=2)</span>',
            ),
        ),
        ("see http://b.example.", f"<p>see {LINK.format(*['http://b.example'] * 2)}.</p>"),
        (
            "[a](mailto:b@c.example)",
            '<p><span>a</span><span class="address"> (mailto:b@c.example)</span></p>',
        ),
        ("![a](b.png)", "<p>![a](b.png)</p>"),
        ("[a](data:text/html,b)", "<p>[a](data:text/html,b)</p>"),
    ],
)
def test_the_rest_of_commonmark_and_what_people_expect_of_it(page, text, html):
    assert page.tab.evaluate(MARKDOWN, text) == html


def test_a_table_has_its_columns_aligned(page):
    html = page.tab.evaluate(MARKDOWN, "| a | b |\n|---|--:|\n| **1** | 2 |\n\nafter")
    head = '<thead><tr><th>a</th><th class="right">b</th></tr></thead>'
    body = "<tbody><tr><td><strong>1</strong></td>" + '<td class="right">2</td></tr></tbody>'
    assert f"<table>{head}{body}</table>" in html
    assert html.endswith("<p>after</p>")


def test_four_backticks_hold_three_and_are_closed_by_four(page):
    html = page.tab.evaluate(MARKDOWN, "````\n```\nx\n```\n````\nafter")
    assert "<code>```\nx\n```</code>" in html
    assert html.endswith("<p>after</p>")


def test_an_answer_that_grows_keeps_the_blocks_that_are_there(page):
    kept = page.tab.evaluate(
        """async () => {
          const { render } = await import("./markdown.js");
          const box = document.createElement("div");
          render(box, "one\\n\\ntwo");
          const [one, two] = box.children;
          render(box, "one\\n\\ntwo and a half\\n\\n- three");
          return [box.children[0] === one, box.children[1] === two, box.innerHTML];
        }"""
    )
    assert kept == [True, False, "<p>one</p><p>two and a half</p><ul><li>three</li></ul>"]


def test_the_parser_is_the_published_one():
    expected, name = (WEB / "vendor" / "SHA256SUMS").read_text().split()
    assert hashlib.sha256((WEB / "vendor" / name).read_bytes()).hexdigest() == expected


def test_no_script_of_the_page_parses_markup():
    for script in WEB.glob("*.js"):
        text = script.read_text()
        for call in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"):
            assert call not in text, script.name


def test_a_code_block_is_literal_and_can_be_copied(page):
    html = page.tab.evaluate(MARKDOWN, "```html\n<b>**x**</b>\n```\nafter")
    assert "<code>&lt;b&gt;**x**&lt;/b&gt;</code>" in html
    assert 'aria-label="Copy the code"' in html
    assert html.endswith("<p>after</p>")
