"""HTML that loads nothing from elsewhere: templates filled, data for scripts, and a security policy."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from slg_wds import __version__
from slg_wds.masking import masked


def filled(template: str, script: str = "", **fields: Any) -> str:
    """Fill a template of a page, with the style, the security policy and the version that all pages have.

    Args:
        template: its name.
        script: the name of the page's script; "" for none.
        fields: its other variables.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text_of),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_without_secrets,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css, code = _text_of("report.css"), _text_of(script) if script else ""
    shared = {
        "version": __version__,
        "policy": _policy(css, code),
        "css": Markup(css),
        "script": Markup(code),
    }
    return environment.get_template(template).render(**shared, **fields)


def _without_secrets(value: Any) -> Any:
    """Mask secrets in every text that the template prints, except in the parts of the page itself."""
    return value if isinstance(value, Markup) else masked(value)


def _text_of(name: str) -> str:
    return (resources.files("slg_wds.report") / "templates" / name).read_text("utf-8")


def _policy(css: str, script: str) -> str:
    """Return the policy of a page: only its own style and script, by their hashes, and its own pictures."""
    return "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_hash(css)}'",
            f"script-src '{_hash(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        ]
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"


def embedded(data: Any) -> str:
    """Encode data as JSON that no HTML parser takes for markup: `<`, `>` and `&` are escaped."""
    text = json.dumps(masked(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
