"""Which path is a forward-auth server told? The one that the controller routes, in the one form that it can have.

The server may hold a list of paths that it denies. A path that reads otherwise there than it is routed here would get
past the list. So `plane.controller.api.forward_auth` gives the router's own reading, with escapes decoded. It refuses
what
two servers could read differently: further escapes, empty segments, `.` and `..`, parameters after `;`, a slash at the
end.
"""

from __future__ import annotations

import re

from plane.protocol.errors import PlaneError

__all__ = ["AmbiguousPath", "routed_path"]

# What the paths of the API and the names in them (clusters, drones, backends) are made of.
_SEGMENT = r"/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~:@\[\]-]+"
_PATH = re.compile(rf"/|(?:{_SEGMENT})+")


class AmbiguousPath(PlaneError):
    """The path may mean different things to different servers. The message is for the client."""


def routed_path(path: str) -> str:
    """Return the path to tell, which is ``path``: the router's reading, decoded but for what it leaves escaped.

    Raises:
        AmbiguousPath
    """
    if not _PATH.fullmatch(path):
        raise AmbiguousPath(
            "the path must consist of names of letters, digits and . _ ~ : @ [ ] -, each after one /; "
            "none of them may be `.` or `..`"
        )
    return path
