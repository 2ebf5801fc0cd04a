import datetime
import os
import sys
from pathlib import Path

from sphinx_astropy.conf.v2 import *  # noqa: F401, F403
from sphinx_astropy.conf.v2 import exclude_patterns, extensions, intersphinx_mapping

from lensdeblend import __version__

sys.path.insert(0, str(Path(__file__).parent))
extensions += ["benchmark_directive"]

project = "lensdeblend"
author = "The lensdeblend developers"
copyright = f"{datetime.date.today().year}, {author}"
version = release = __version__

highlight_language = "python3"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_theme_options = {"collapse_navigation": True, "navigation_depth": 2, "show_nav_level": 2}
numpydoc_xref_param_type = False
plot_include_source = False
plot_html_show_source_link = False
plot_formats = [("png", 120)]
exclude_patterns += ["plugin_example"]

# A build without network must be as clean as one with it: other projects' inventories are fetched only where asked for.
if not (os.environ.get("READTHEDOCS") or os.environ.get("LENSDEBLEND_DOCS_LINKS")):
    intersphinx_mapping.clear()
else:
    intersphinx_mapping |= {
        "lenstronomy": ("https://lenstronomy.readthedocs.io/en/latest/", None),
        "photutils": ("https://photutils.readthedocs.io/en/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }
    for name in ("pythonloc", "h5py", "astropy.org"):
        intersphinx_mapping.pop(name, None)
