"""Light Markdown for answers as they stream: bold, italics, code, headings and list markers.

Contract: adds colours and takes nothing away. Without the escape codes the output is the input,
character for character, however the input was cut into pieces; markers stay visible, dimmed. No
style outlives its line but that of a code block, and none outlives a call. What is a marker is
decided by markdown-it's rules (CommonMark). Only what may still become one is held back, and `end`
gives it out.
"""

from __future__ import annotations

import re

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

# Select Graphic Rendition parameters (ECMA-48, 8.3.117).
MARKER, HEADING, STRONG, EMPHASIS, CODE, ITEM = "2", "1;4", "1", "3", "36", "36"

PARSER = MarkdownIt("zero").enable(["code", "fence", "heading", "list"])
# The start of a line whose kind the next characters decide.
UNCERTAIN = re.compile(r"[ \t]*(?:#*|[-*+]?|\d*[.)]?|`{1,2}|`{3,}[^`\n]*|~+[^\n]*)")
UNCERTAIN_CODE = re.compile(r" *(?:`*|~*)[ \t]*")
TOKEN = re.compile(r"\n|\\[^\n]|\\|`+|\*+|_+|[^\n\\`*_]+")
TOKEN_IN_CODE = re.compile(r"\n|`+|[^\n`]+")


class MarkdownStream:
    """Styles one answer, piece by piece."""

    def __init__(self) -> None:
        self._held = ""
        self._before = "\n"  # the character before what is held
        self._fence = ""  # the line that opened the code block we are in
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
            # A line after the block is a block of its own only if this line closes it.
            if len(PARSER.parse(f"{self._fence}\n{line}\nafter")) > 1:
                self._fence, codes = "", MARKER
                self._begin_line()
                self._checked = not newline
        self._give(len(line), codes)
        self._give(len(newline))
        return True

    def _line_start(self, final: bool) -> bool:
        line, newline, _ = self._held.partition("\n")
        if not newline and not final and UNCERTAIN.fullmatch(line):
            return False
        self._checked = True
        block = _first_block(line)
        if block.type == "fence" and newline:
            self._fence = line
            self._give(len(line), MARKER)
        elif block.type == "heading_open":
            self._heading = True
            self._give(line.index("#") + len(block.markup), MARKER)
        elif block.type in ("bullet_list_open", "ordered_list_open"):
            end = line.index(block.markup) + 1
            self._give(end if line[end:] else 0, ITEM)  # a number at the end may be a sentence's
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
        elif token[0] in "*_" and not self._code and self._toggles(token, after):
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

        The line may not be complete, so a run closes what an equal run opened, and what is never
        closed lasts until the line ends.
        """
        mark = run[0]
        line = StateInline(self._before + run + after, PARSER, {}, [])
        can = line.scanDelims(len(self._before), canSplitWord=mark == "*")
        strong, emphasis = len(run) in (2, 3), len(run) in (1, 3)
        if not strong and not emphasis:
            return False
        wanted = (mark if strong else self._strong, mark if emphasis else self._emphasis)
        if can.can_close and (self._strong, self._emphasis) == wanted:
            self._strong = "" if strong else self._strong
            self._emphasis = "" if emphasis else self._emphasis
            return True
        if not can.can_open or (strong and self._strong) or (emphasis and self._emphasis):
            return False
        self._strong, self._emphasis = wanted
        return True

    def _codes(self) -> str:
        if self._code:
            return CODE
        styles = ((HEADING, self._heading), (STRONG, self._strong), (EMPHASIS, self._emphasis))
        return ";".join(codes for codes, on in styles if on)


def _first_block(line: str) -> Token:
    """What a line begins; an indented list marker belongs to a nested list."""
    blocks = PARSER.parse(line) or [Token("paragraph_open", "", 0)]
    if blocks[0].type == "code_block":
        nested = PARSER.parse(line.strip())
        return nested[0] if nested[0].type.endswith("list_open") else blocks[0]
    return blocks[0]
