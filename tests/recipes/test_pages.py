"""The pages and the files belong together: no dead link, no file that no page names, none that no test uses."""
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGES = HERE.parents[1] / "docs" / "recipes"


def links(page):
    return [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in link and not link.startswith("#")]


def test_every_link_of_every_page_leads_somewhere():
    pages = list(PAGES.glob("*.md"))
    assert len(pages) >= 22
    dead = [(page.name, link) for page in pages for link in links(page) if not (page.parent / link).exists()]
    assert not dead


def test_every_file_is_named_by_a_page_and_used_by_a_test():
    folders = HERE, HERE.parent / "interop"
    tests = "".join(path.read_text() for folder in folders for path in folder.glob("test_*.py"))
    named = {(page.parent / link).resolve() for page in PAGES.glob("*.md") for link in links(page)}
    for path in (PAGES / "files").iterdir():
        assert path.resolve() in named, f"no page links {path.name}"
        assert f'"{path.name}"' in tests, f"no test uses {path.name}"


def test_the_index_names_every_page():
    found = set(links(PAGES / "README.md"))
    assert {page.name for page in PAGES.glob("*.md")} - {"README.md"} <= found
