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
mathjax_path = "mathjax/tex-chtml-full.js"

autodoc_typehints = "none"  # the signature has them; shapes stand in the text
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False

html_theme = "sphinx_book_theme"
html_title = "convkit"
html_css_files = ["book.css"]
html_js_files = ["drawing.js", "panels.js"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {"use_download_button": False, "use_fullscreen_button": False, "show_toc_level": 2}

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
