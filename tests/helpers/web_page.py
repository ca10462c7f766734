"""A report as a browser without scripts sees it, for tests of the page and of its charts."""

import base64
from html.parser import HTMLParser

VOID = {"meta", "img", "input", "br", "hr", "link"}         # elements of HTML that have no end tag


class Page(HTMLParser):
    """The attributes, texts and pictures of some HTML; fails if its tags do not match."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open, self.attributes, self.texts, self.images = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag == "img":
            self.images.append(base64.b64decode(dict(attributes)["src"].removeprefix("data:image/png;base64,")))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.attributes += [(tag, *pair) for pair in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def text(self) -> str:
        return "\n".join(data for tag, data in self.texts if tag not in ("style", "script"))

    def commands(self) -> list[str]:
        return [data for tag, data in self.texts if tag == "code"]
