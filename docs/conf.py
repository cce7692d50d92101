"""Sphinx's configuration."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

from twisted_smtpd import __version__

project = "twisted-smtpd"
copyright = "the twisted-smtpd authors"
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "api_tables",
    "metrics_tables",
    "option_tables",
    "state_tables",
]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
exclude_patterns = ["_build"]

html_static_path = ["_static"]
html_css_files = ["states.css", "blocks.css"]
html_theme = "furo"
html_title = f"twisted-smtpd {release}"
