"""Shows the checkout's other documents on the site, and makes links work on both.

On GitHub a page of docs/ links to `../launch/README.md`; on the site that document is a page too.
Links to files that are no page, such as a Python file, become plain text there.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "launch/README.md", "datasets/*/README.md")
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:\s]+)(#[^)]*)?\)")


def on_files(files, config):
    """Adds the documents outside docs/, under their path in the checkout."""
    for pattern in PAGES:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, content=path.read_text()))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns links between files of the checkout into links between pages of the site."""
    uris = {file.src_uri for file in files}
    inside = page.file.generated_by is None
    folder = posixpath.dirname(page.file.src_uri)
    here = posixpath.join("docs", folder) if inside else folder

    def link(found):
        text, target, anchor = found[1], found[2], found[3] or ""
        place = posixpath.normpath(posixpath.join(here, target))
        uri = place.removeprefix("docs/") if place.startswith("docs/") else place
        if uri == "README.md":
            uri = "index.md"
        if uri not in uris:
            return text
        return f"[{text}]({posixpath.relpath(uri, folder or '.')}{anchor})"

    return LINK.sub(link, markdown)
