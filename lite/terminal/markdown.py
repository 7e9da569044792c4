"""Light Markdown for answers as they stream: bold, italics, code, headings and list markers.

Contract: adds colours and takes nothing away. Without the escape codes the output is the input,
character for character, however the input was cut into pieces; markers stay visible, dimmed. No
style outlives its line but that of a code block, and none outlives a call. Only what may still
become a marker is held back, and `end` gives it out.
"""

from __future__ import annotations

import re

# Select Graphic Rendition parameters (ECMA-48, 8.3.117).
MARKER, HEADING, STRONG, EMPHASIS, CODE, ITEM = "2", "1;4", "1", "3", "36", "36"

FENCE = re.compile(r" {0,3}(?P<ticks>`{3,}|~{3,})[^`\n]*(?=\n)")
TITLE = re.compile(r" {0,3}#{1,6}(?=[ \t\n])")
LIST = re.compile(r"[ \t]*(?:[-*+]|\d{1,3}[.)])(?=[ \t])")
# The start of a line that the next characters may make one of these.
UNCERTAIN = re.compile(
    r" {0,3}(?:#{0,6}|`{0,2}|`{3,}[^`\n]*|~{0,2}|~{3,}[^`\n]*)|[ \t]*(?:[-*+]?|\d{0,3}[.)]?)"
)
CLOSING = re.compile(r" {0,3}(?P<ticks>`{3,}|~{3,})[ \t]*")
UNCERTAIN_CODE = re.compile(r" {0,3}(?:`*|~*)[ \t]*")
TOKEN = re.compile(r"\n|\\[^\n]|\\|`+|\*+|_+|[^\n\\`*_]+")
TOKEN_IN_CODE = re.compile(r"\n|`+|[^\n`]+")


class MarkdownStream:
    """Styles one answer, piece by piece."""

    def __init__(self) -> None:
        self._held = ""
        self._before = "\n"  # the character before what is held
        self._fence = ""  # the marker that opened the code block we are in
        self._out: list[tuple[str, str]] = []
        self._begin_line()

    def feed(self, text: str) -> str:
        """Take a piece; returns what can be shown."""
        self._held += text
        return self._flush(final=False)

    def end(self) -> str:
        """The rest, whatever it might have become."""
        return self._flush(final=True)

    def _begin_line(self) -> None:
        self._checked = False  # whether it is known what kind of line this is
        self._heading = False
        self._code = ""  # the open marker of each kind, within this line
        self._strong = ""
        self._emphasis = ""

    def _flush(self, final: bool) -> str:
        while self._held and self._step(final):
            pass
        parts, self._out = self._out, []
        return "".join(f"\x1b[{codes}m{text}\x1b[0m" if codes else text for text, codes in parts)

    def _give(self, count: int, codes: str = "") -> None:
        if count:
            text, self._held = self._held[:count], self._held[count:]
            self._before = text[-1]
            self._out.append((text, codes))

    def _step(self, final: bool) -> bool:
        """Give out the next part of what is held; False where it has to wait."""
        if self._fence:
            return self._code_line(final)
        return self._inline(final) if self._checked else self._line_start(final)

    def _code_line(self, final: bool) -> bool:
        line, newline, _ = self._held.partition("\n")
        codes = CODE
        if self._before == "\n":
            if not newline and not final and UNCERTAIN_CODE.fullmatch(line):
                return False
            closing = CLOSING.fullmatch(line)
            if closing and closing["ticks"].startswith(self._fence):
                self._fence, codes = "", MARKER
                self._begin_line()
                self._checked = not newline
        self._give(len(line), codes)
        self._give(len(newline))
        return True

    def _line_start(self, final: bool) -> bool:
        if "\n" not in self._held and not final and UNCERTAIN.fullmatch(self._held):
            return False
        self._checked = True
        if fence := FENCE.match(self._held):
            self._fence = fence["ticks"]
            self._give(fence.end(), MARKER)
            self._give(1)
        elif title := TITLE.match(self._held):
            self._heading = True
            self._give(title.end(), MARKER)
        elif item := LIST.match(self._held):
            self._give(item.end(), ITEM)
        return True

    def _inline(self, final: bool) -> bool:
        found = (TOKEN_IN_CODE if self._code else TOKEN).match(self._held)
        assert found is not None  # one of the alternatives fits every character
        token, after = found[0], self._held[found.end() : found.end() + 1]
        # A run of markers may grow, and what it means depends on the character after it.
        if not after and not final and (token[0] in "`*_" or token == "\\"):
            return False
        if token == "\n":
            self._begin_line()
            self._give(1)
        elif token[0] == "`":
            self._backticks(token)
        elif token[0] in "*_" and not self._code and self._toggles(token, after or "\n"):
            self._give(len(token), MARKER)
        else:
            self._give(len(token), self._codes())
        return True

    def _backticks(self, run: str) -> None:
        if self._code and run != self._code:
            self._give(len(run), CODE)
            return
        self._code = "" if self._code else run
        self._give(len(run), MARKER)

    def _toggles(self, run: str, after: str) -> bool:
        """Open or close what a run of asterisks or underscores stands for.

        The rules are a part of CommonMark's (0.31, section 6.2): an opening run is not followed by
        a space, a closing one does not follow a space, and underscores inside a word are text.
        """
        mark, before = run[0], self._before
        inside = mark == "_"
        opens = not after.isspace() and not (inside and before.isalnum())
        closes = not before.isspace() and not (inside and after.isalnum())
        strong, emphasis = len(run) in (2, 3), len(run) in (1, 3)
        if not strong and not emphasis:
            return False
        wanted = (mark if strong else self._strong, mark if emphasis else self._emphasis)
        if closes and (self._strong, self._emphasis) == wanted:
            self._strong = "" if strong else self._strong
            self._emphasis = "" if emphasis else self._emphasis
            return True
        if not opens or (strong and self._strong) or (emphasis and self._emphasis):
            return False
        self._strong, self._emphasis = wanted
        return True

    def _codes(self) -> str:
        if self._code:
            return CODE
        styles = ((HEADING, self._heading), (STRONG, self._strong), (EMPHASIS, self._emphasis))
        return ";".join(codes for codes, on in styles if on)
