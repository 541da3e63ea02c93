# SPDX-License-Identifier: Apache-2.0
"""Templates with names in braces, as ``str.format`` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from string import Formatter

from lect.errors import UserError


def placeholders(template: str, known: Sequence[str], where: str) -> list[str]:
    """The names in the braces of a template, in their order; doubled braces are braces.

    Raises UserError, which begins with ``where``, for braces that do not pair and for a name that is not ``known`` or
    has a format or conversion.
    """
    try:
        found = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise UserError(f"{where}: {error}; write {{{{ and }}}} for braces that mean themselves") from None
    for name, form, conversion in found:
        if name not in known or form or conversion:
            raise UserError(f"{where}: {{{name}}} is not known here; use {', '.join(f'{{{one}}}' for one in known)}")
    return [str(name) for name, *_ in found]
