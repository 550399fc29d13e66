"""Which path does a forward-auth server get? The one that the controller routes, in its only possible form.

The server may have a list of denied paths. A path that it reads differently than the controller's router would bypass
that list. So `plane.controller.api.forward_auth` sends the router's own reading, with escapes decoded. It refuses paths
that two servers could read differently: further escapes, empty segments, `.` and `..`, parameters after `;`, and a
slash at the end.
"""

from __future__ import annotations

import re
from typing import Final

from plane.protocol.errors import PlaneError

__all__ = ["AmbiguousPath", "routed_path"]

# The characters of the API's paths and of the names in them (clusters, drones, backends).
_SEGMENT: Final = r"/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~:@\[\]-]+"
_PATH: Final = re.compile(rf"/|(?:{_SEGMENT})+")


class AmbiguousPath(PlaneError):
    """Different servers may read the path differently. The message is for the client."""


def routed_path(path: str) -> str:
    """Return ``path``, the router's reading, if it is unambiguous.

    Raises:
        AmbiguousPath
    """
    if not _PATH.fullmatch(path):
        raise AmbiguousPath(
            "the path must consist of names of letters, digits and . _ ~ : @ [ ] -, each after one /; "
            "none of them may be `.` or `..`"
        )
    return path
