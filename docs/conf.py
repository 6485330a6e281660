"""How Sphinx builds the site; `make docs` does so, and takes any warning for an error."""

import re
import warnings
from importlib.metadata import version as version_of

from sphinx.application import Sphinx

# Sphinx looks at the columns of a mixin, which SQLAlchemy warns of.
warnings.filterwarnings("ignore", message="Unmanaged access of declarative attribute")

project = "tasktrail"
author = "The tasktrail developers"
project_copyright = f"2026, {author}"
release = version = version_of("tasktrail")

extensions = [
    "myst_parser",  # the pages are Markdown
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinxcontrib.typer",
]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["README.md", "conf.py"]  # what GitHub shows for the folder; index.md is the site's

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "tasktrail"
html_copy_source = False


def hand_out_pages_from_elsewhere(_: Sphinx, docname: str, source: list[str]) -> None:
    """Make links to Markdown outside this folder downloads, as links to other files are by themselves."""
    out = "../" * (docname.count("/") + 1)
    source[0] = re.sub(rf"\]\({re.escape(out)}(?!\.)([^)#]+\.md)", rf"](path:{out}\1", source[0])


def setup(app: Sphinx) -> None:
    """Tell Sphinx about the function above."""
    app.connect("source-read", hand_out_pages_from_elsewhere)
