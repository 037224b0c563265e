"""How Sphinx writes the book; `python3 -m convkit book` calls it with all that it needs."""

import os

project, author, copyright = "convkit", "the convkit authors", "the convkit authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx_copybutton"]
default_role = "code"  # a `word` of a docstring

nb_execution_mode = "off"  # the stored outputs
nb_ipywidgets_js = {}  # these would come from outside
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_dmath_double_inline = True
myst_heading_anchors = 2  # as GitHub has them: links to a heading of another page
mathjax_path = "mathjax/tex-chtml-full.js"

autodoc_typehints = "none"  # the signature has them; shapes stand in the text
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # else an attribute of the docstring and of the class is told twice

html_theme = "sphinx_book_theme"
html_title = "convkit"
html_css_files = ["book.css"]
html_js_files = ["drawing.js", "panels.js"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {"use_download_button": False, "use_fullscreen_button": False, "show_toc_level": 2}
html_theme_options |= {"navbar_persistent": []}  # one field to search in is enough
html_context = {"default_mode": "auto"}  # light or dark as the reader's system is, until it is chosen

# Only the workflow that publishes the book knows the address of the repository.
repository = os.environ.get("GITHUB_REPOSITORY", "")
if repository:
    html_theme_options |= {
        "repository_provider": "github",
        "repository_url": f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{repository}",
        "repository_branch": os.environ.get("GITHUB_REF_NAME", "main"),
        "use_repository_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    }


def keep_tags_outside(app, doctree):
    """Put formulas with a line break into `equation`: Sphinx would wrap them in `split`, which takes no `\\tag`."""
    for node in doctree.findall(lambda node: node.tagname == "math_block"):
        if r"\\" in node.astext() and not node.get("no-wrap"):
            node.children[:] = [type(node.children[0])(rf"\begin{{equation}}{node.astext()}\end{{equation}}")]
            node["no-wrap"] = node["nowrap"] = True


def keep_sentences_whole(app, what, name, subject, options, lines):
    """Keep napoleon from taking the words before a colon for the type of a property."""
    if what in ("property", "attribute"):
        lines.insert(0, "")


def skip_numbered_fields(app, what, name, subject, skip, options):
    """Leave out the fields of a named tuple: its own text tells what they are."""
    return True if (getattr(subject, "__doc__", "") or "").startswith("Alias for field number") else None


def setup(app):
    """Register what is above."""
    app.connect("doctree-read", keep_tags_outside)
    app.connect("autodoc-process-docstring", keep_sentences_whole, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip_numbered_fields)
